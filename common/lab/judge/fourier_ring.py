"""Scanning Fourier ring correlation: where a volume contradicts its reference."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

_PATCH = 64  # voxels
_CORRELATION = 0.5
_TISSUE = 0.1  # least share of a patch


def find_agreeing_frequencies(
    volume: np.ndarray, reference: np.ndarray, tissue: np.ndarray, normal: int = 2, along: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Find up to which frequency the patches of a volume agree with those of its reference.

    With X and Y the Fourier transforms of two patches, and sums over the ring of radius r,

    .. math:: \mathrm{FRC}(r) = \frac{\sum \mathrm{Re}(X \bar Y)}{\sqrt{\sum |X|^2 \sum |Y|^2}}

    A patch agrees up to the first ring whose correlation is below 0.5. The patch is called a hallucination if it agrees
    only up to a frequency that the user chooses. Blur does not lower the correlation, but noise and wrong detail do.
    A ring holds all directions of a plane, so wrong detail along one of them may hide behind right detail along the
    other; ``along`` leaves only those within 45 degrees of an axis. Frequencies above that of disagreement are not
    judged.

    As in the paper: patches of 64 x 64 voxels, a Hann window, rings within the patch, each the mean over radii
    rounded down and up, and the threshold 0.5; patches with less than a tenth of tissue are left out. Not as there:
    patches overlap by half, and a negative correlation is not made positive.

    Args:
        volume, reference: ``(X, Y, Z)``, any units. In planes smaller than a patch, a patch is as large as the plane.
        tissue: mask ``(X, Y, Z)``.
        normal: axis across the planes that are scanned.
        along: the only axis of the planes that is judged, for scans that are coarse along it alone; None for both.

    Returns:
        The frequency of each patch in cycles per voxel, 0.5 if it agrees on all rings, (N,); and the corners of the
        patches, (N, 3), in voxels.

    Source:
        Kc, Zeng, Soni and Badano, sFRC for assessing hallucinations in medical image restoration, arXiv 2603.04673.
    """
    planes = [torch.from_numpy(np.ascontiguousarray(np.moveaxis(v, normal, 0))) for v in (volume, reference, tissue)]
    patch = min(_PATCH, *planes[0].shape[1:])
    side = None if along is None else [axis for axis in range(3) if axis != normal].index(along)
    rings, window = _make_rings(patch, side), torch.hann_window(patch, periodic=False)
    starts = torch.cartesian_prod(*(_place_patches(n, patch) for n in planes[0].shape[1:]))
    frequencies, corners = [], []
    for plane, (first, second, mask) in enumerate(zip(*planes, strict=True)):
        cut = [(slice(x, x + patch), slice(y, y + patch)) for x, y in starts.tolist()]
        kept = [place for place in cut if mask[place].float().mean() >= _TISSUE]
        if not kept:
            continue
        spectra = [torch.stack([each[place] for place in kept]).float() for each in (first, second)]
        spectra = [torch.fft.fft2((v - v.amin((1, 2), True)) * window * window[:, None]) for v in spectra]
        x, y = (torch.view_as_real(v).reshape(len(kept), patch * patch, 2) for v in spectra)
        cross, power, power_of_reference = ((a * b).sum(-1) @ rings.T for a, b in ((x, y), (x, x), (y, y)))
        below = cross < _CORRELATION * (power * power_of_reference).sqrt()
        below[:, 0] = False  # brightness is no detail
        ring = torch.where(below.any(1), below.float().argmax(1), patch // 2)
        frequencies.append(ring.numpy() / patch)
        corners.append(np.insert([[place[0].start, place[1].start] for place in kept], normal, plane, axis=1))
    if not frequencies:
        return np.zeros(0), np.zeros((0, 3), int)
    return np.concatenate(frequencies), np.concatenate(corners)


def map_patches(values: np.ndarray, corners: np.ndarray, shape: tuple[int, ...], normal: int = 2) -> np.ndarray:
    """The mean over the patches that hold a voxel, 0 where there is none.

    Args:
        values: of the patches, (N,).
        corners: (N, 3), and
        normal: as for :func:`find_agreeing_frequencies`.
        shape: of the volume.
    """
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    patch = min(_PATCH, *(n for axis, n in enumerate(shape) if axis != normal))
    for value, corner in zip(values, corners.tolist(), strict=True):
        place = tuple(slice(c, c + (1 if axis == normal else patch)) for axis, c in enumerate(corner))
        total[place] += value
        count[place] += 1
    return total / np.maximum(count, 1)


def _place_patches(size: int, patch: int) -> torch.Tensor:
    """First voxels of patches that overlap by half or more, and reach both ends."""
    count = 1 + -(-(size - patch) // max(patch // 2, 1))
    return torch.linspace(0, size - patch, count).round().long()


@lru_cache(maxsize=8)
def _make_rings(patch: int, side: int | None) -> torch.Tensor:
    """The rings that each frequency of a patch counts for, (patch // 2, patch * patch), or a sector of them."""
    k = torch.fft.fftfreq(patch, 1 / patch)
    radius = (k.square() + k.square()[:, None]).sqrt().flatten()
    number = torch.arange(patch // 2)[:, None]
    rings = (radius.floor() == number).float() + (radius.ceil() == number).float()
    if side is None:
        return rings
    is_in = (k.abs()[:, None] >= k.abs()).float()
    return rings * (is_in if side == 0 else is_in.T).flatten()
