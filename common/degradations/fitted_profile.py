"""The profile of a scan's slices, from the scan."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor, affine_to_spacing
from nibabel.affines import voxel_sizes

from ..io.files import read_sidecar, slice_thickness
from ..io.images import open_image
from ..physics.means import mean_in_order
from .gaussian_profile import GaussianProfile

_WIDTHS = np.arange(0.6, 1.41, 0.1)  # of the slices' distance
_TRUST = 0.8  # in a width that is found, the rest in slices that touch
_ORDINARY = (0.7, 1.2)  # widths of scanners' profiles
_TISSUE = 0.02
_PAIRS = 100  # of neighbours in tissue that a mean square needs
_ROUNDING = 0.01  # of voxel sizes in headers
_SLICES = 10  # fewer hold too little of the anatomy


class FittedProfile:
    r"""A Gaussian slice profile as wide as a stack of slices shows that its own is.

    A stack that is averaged and sampled in plane as the scanner did it across the slices is as coarse along both axes.
    How coarse is told by the mean squares of the differences between neighbours and between next but one,

    .. math:: q = \log \overline{(x_{i+1} - x_i)^2} - \log \overline{(x_{i+2} - x_i)^2},

    in tissue: edges that are stronger or more along one axis than along another count in both. The width is the one at
    which q of the axis in plane, on the mean of both axes in plane, is that across the slices.

    It is too wide where anatomy is smoother across the slices than in plane, as a neck or a few slices of the middle of
    a head are, and too narrow where it is rougher, where planes were interpolated to more pixels than were acquired,
    and with much noise (10 %; 3 % changes it little). So a fifth of what it differs from 1, slices that touch, is not
    believed, nor what is beyond 0.7 to 1.2.

    Args:
        factors: of the profile that is returned; those of the axes in plane are 1.

    Source:
        That a stack teaches its own slice profile, as what makes planes across the slices and planes that were
        degraded look alike: Han et al., ESPRESO, IEEE TMI 2023, with an adversarial network in the place of q.
    """

    def __init__(self, factors: Sequence[float]) -> None:
        self.factors = tuple(factors)

    def width(self, volume: torch.Tensor) -> float | None:
        """Full width at half maximum of a volume's profile, in distances of its slices.

        Args:
            volume: ``(B, 1, X, Y, Z)``, about in [0, 1], slices along the last axis. With an affine the profile is
                measured at the slices' distance, otherwise at the last of the factors.

        Returns:
            0.7 to 1.2, also where it is less or more; None where fewer than 10 slices or too little tissue tell it.
        """
        factors = 2 * [float(self.factors[-1])]
        if isinstance(volume, MetaTensor):
            *in_plane, distance = affine_to_spacing(volume.affine.reshape(-1, 4, 4)[0]).tolist()
            factors, volume = [max(1.0, round(distance / pixel, 3)) for pixel in in_plane], volume.as_tensor()
        if volume.shape[4] < _SLICES:
            return None
        stacks = [(volume.movedim(axis, 3), factor) for axis, factor in zip((2, 3), factors, strict=True)]
        differ = [[_differ(stack, factor, float(width)) for stack, factor in stacks] for width in _WIDTHS]
        means = np.mean(differ, axis=1)
        if not np.isfinite(means).all():
            return None
        return float(np.clip(1 + _TRUST * (np.interp(0.0, means, _WIDTHS) - 1), *_ORDINARY))

    def of(self, width: float | None) -> GaussianProfile:
        """The profile of this width; as wide as the slices are apart where it is None."""
        return GaussianProfile(self.factors, fwhm=width or 1.0)


def slice_profile(factors: Sequence[float], fwhm: float | str) -> GaussianProfile | FittedProfile:
    """The slice profile at which a network is fine-tuned on a scan (the configs' ``adapt_profile``).

    Args:
        factors: of the profile.
        fwhm: full width at half maximum, in distances of the slices, or ``auto``: the scan's own.

    Raises:
        ValueError: when it is neither.
    """
    if fwhm == "auto":
        return FittedProfile(factors)
    if isinstance(fwhm, bool) or not isinstance(fwhm, int | float) or not 0 < fwhm < math.inf:
        raise ValueError(
            f"adapt_profile is {fwhm!r}, expected auto or a positive number: the width of the slices in their distance."
        )
    return GaussianProfile(factors, fwhm=fwhm)


def told_width(volume: torch.Tensor) -> float | None:
    """Width of a stack's profile as its protocol has it, in distances of its slices.

    That is the ``SliceThickness`` in mm of the volume's metadata, as those who read DICOM give it, or else of the
    sidecar JSON, as dcm2niix and BIDS write it, over the distance of the slices, which is more where gaps are between
    them. It is a hint: what cannot be read is a warning.

    Args:
        volume: ``(B, 1, X, Y, Z)``, slices along the last axis, the first of them the scan.

    Returns:
        None where nothing says how thick the slices are. A JSON says nothing of a volume whose slices are not as far
        apart as the voxels of its file along an axis, as LR that was made from an HR scan.
    """
    if not isinstance(volume, MetaTensor):
        return None
    file, said = (_of_first(volume, key) for key in ("filename_or_obj", "SliceThickness"))
    spacing = affine_to_spacing(volume.affine.reshape(-1, 4, 4)[0]).tolist()
    if said is None:
        mm = _in_sidecar(file, spacing) if isinstance(file, str) else None
    elif (mm := slice_thickness(said)) is None:
        warnings.warn(f"{file}: SliceThickness is {said!r}, expected mm above 0; it is not used.", stacklevel=2)
    return None if mm is None else mm / spacing[2]


def _of_first(volume: MetaTensor, key: str) -> object:
    """What the metadata of a volume, or of the first of a batch, has under a key."""
    value = volume.meta.get(key)
    while isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = np.ravel(value)[0].item()
    return value


def _in_sidecar(file: str, spacing: Sequence[float]) -> float | None:
    """The SliceThickness in the sidecar JSON of a file whose slices are as far apart; None where it says none."""
    said, problem = read_sidecar(file)
    if problem is not None:
        warnings.warn(problem, stacklevel=3)
    if "SliceThickness" not in said or not Path(file).is_file():
        return None
    same = np.isclose(voxel_sizes(open_image(file).affine), spacing[2], rtol=_ROUNDING)
    return said["SliceThickness"] if same.any() else None


def _differ(volume: torch.Tensor, factor: float, width: float) -> float:
    """q across the slices, the last axis, less q along the one before, which is averaged so; not finite if unknown."""
    if volume.shape[3] < factor:
        return math.nan
    if factor.is_integer():  # then no rows may be left over
        volume = volume[:, :, :, : int(volume.shape[3] // factor * factor)]
    coarse = GaussianProfile((1, factor, 1), fwhm=width)(volume.flatten(0, 1))
    tissue = coarse > _TISSUE
    across, along = (_mean_squares(coarse, tissue, axis) for axis in (3, 2))
    return float((across[0] / across[1]).log() - (along[0] / along[1]).log())


def _mean_squares(volume: torch.Tensor, tissue: torch.Tensor, axis: int) -> list[torch.Tensor]:
    """Of the differences between neighbours and between next but one in tissue; NaN where there are too few."""
    means = []
    for step in (1, 2):
        n = max(volume.shape[axis] - step, 0)
        inside = tissue.narrow(axis, 0, n) & tissue.narrow(axis, volume.shape[axis] - n, n)
        squares = (volume.narrow(axis, volume.shape[axis] - n, n) - volume.narrow(axis, 0, n)).square()[inside]
        means.append(mean_in_order(squares) if len(squares) >= _PAIRS else squares.new_tensor(torch.nan))
    return means
