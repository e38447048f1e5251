"""Compare a scan with the scans that weights were trained on, by a few statistics."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from nibabel.affines import voxel_sizes
from scipy.fft import rfft

from ...geometry.tissue import find_tissue
from ...io.slice_thickness import read_profile_width
from ...physics.noise import estimate_noise_in_tissue
from ...runtime.errors import Notice
from ...weights.loading import read_overlay


class _Statistic(NamedTuple):
    """What is said of a statistic, and when.

    Attributes:
        label: its name in messages.
        unit: of its values, after a space.
        below: what values below the range may mean.
        above: what values above the range may mean.
        far: factors beyond the lower and upper limit of the training range without a warning. Up to there, most of the
            gain over cubic interpolation remained (``tests/benchmarks/out_of_range.py``).
        scans: lowest and highest value for any weights, between 90 MR volumes of heads, bodies and animals, and CT,
            phantoms and inverted contrast.
    """

    label: str
    unit: str = ""
    below: str = ""
    above: str = ""
    far: tuple[float, float] = (1.1, 1.1)
    scans: tuple[float, float] = (-np.inf, np.inf)


_SMALL, _LARGE = (f"voxels {size} than those that the weights sharpen" for size in ("smaller", "larger"))
_ZERO_FILLED, _SHARP = "interpolated, zero-filled or blurred", "sharpened, aliased, or no scan at all"
_STATISTICS = {
    "in_plane_spacing": _Statistic("spacing in plane", " mm", _SMALL, _LARGE, (4.2, 1.5)),
    "slice_spacing": _Statistic("spacing across slabs or slices", " mm", _SMALL, _LARGE, (4.2, 1.5)),
    "noise": _Statistic("noise", "", "denoised or smoothed: give the scan as acquired", "very noisy", (2.5, 1.2)),
    # White noise has 1.
    "in_plane_detail": _Statistic("detail in plane", "", _ZERO_FILLED, _SHARP, (1.1, 1.2), (0, 0.95)),
    # Fine-tuned weights gained at 1.09, those that are not lost their gain there.
    "slice_detail": _Statistic(
        "detail across slabs or slices", "", _ZERO_FILLED, f"gaps between slices, {_SHARP}", (1.1, 1.11)
    ),
    "slice_width": _Statistic(
        "thickness over distance of slices",
        "",
        "by SliceThickness, gaps between slices hold unseen anatomy",
        scans=(0.65, np.inf),
    ),
    # Scaled down to a quarter, scans kept most of their gain.
    "tissue_median": _Statistic("brightness of tissue", "", "some voxels are far brighter", scans=(0.15, np.inf)),
    "tissue_spread": _Statistic("contrast of tissue", "", "CT, a mask, or inverted contrast", scans=(0.04, np.inf)),
    "tissue_share": _Statistic("share of tissue", "", "only vessels or bones, as in CT", scans=(0.05, np.inf)),
    "tissue_voxels": _Statistic("voxels of tissue", " thousand", "a phantom, or a small part", scans=(20, np.inf)),
}
# Names that earlier training ranges have too. No gain depended on them, so these ranges are not checked.
_UNCHECKED = ("air", "tissue_median", "tissue_spread", "tissue_volume")
# Voxel sizes are told if they are outside of their range by more than the factor.
_SPACINGS, _OUTSIDE = ("in_plane_spacing", "slice_spacing"), 1.05
# Ranges are widened by this factor.
_MARGIN = 1.25
# Bands of k-space along an axis, in Nyquist frequencies, and the fewest voxels whose spectrum has both.
_INNER, _OUTER, _FEWEST = (0.4, 0.6), (0.8, 1.0), 8


class CheckTrainingRanged(MapTransform):
    """Warn of volumes that are far outside of the training range of the weights, or that are no MR scans.

    A warning names the file and each statistic: value, range, and possible meaning. Voxel sizes that are outside of the
    range, but not far, cause a notice. What is outside is stored in words as "outside_training", empty for nothing. No
    volume is changed or refused. The statistics do not see pathology, motion and artefacts.

    Args:
        keys: of volumes ``(1, X, Y, Z)`` with an affine in mm, slabs or slices along the last axis, after
            :class:`SliceAxisd` and :class:`NormaliseVolumed`.
        training_range: file of the weights, whose overlay has it from training, or itself: lowest and highest value
            for names of :func:`compute_scan_statistics`. Statistics that it lacks are compared with any scan's. None
            checks nothing.
        scale: voxels of the result for a voxel of the scan along each axis. Along axes that are not refined, empty
            outer k-space took no gain in tests.
    """

    def __init__(
        self,
        keys: KeysCollection,
        training_range: Mapping[str, Sequence[float]] | str | os.PathLike | None,
        scale: Sequence[float] = (2, 2, 2),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = scale
        self.kept = {name for name, n in (("in_plane_detail", max(scale[:2])), ("slice_detail", scale[2])) if n == 1}
        if isinstance(training_range, str | os.PathLike):
            training_range = (read_overlay(training_range) or {}).get("training_range")
        given = {} if training_range is None else training_range
        if not isinstance(given, Mapping):
            raise ValueError(f"training_range is {given!r}, expected a range for each statistic, or null.")
        self.training_range = {name: pair for name, pair in given.items() if name not in _UNCHECKED}
        for name, pair in self.training_range.items():
            if name not in _STATISTICS:
                raise ValueError(f"training_range: there is no statistic {name!r}, expected {', '.join(_STATISTICS)}.")
            if (
                not isinstance(pair, (list, tuple))
                or len(pair) != 2
                or not all(isinstance(n, (int, float)) for n in pair)
                or not pair[0] <= pair[1]
            ):
                raise ValueError(f"training_range: {name} is {pair!r}, expected lowest and highest value.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.training_range else ():
            volume = d[key]
            file = volume.meta.get("filename_or_obj", key)
            statistics = compute_scan_statistics(volume, volume.affine)
            if self.scale[2] > 1 and (width := read_profile_width(volume[None])):
                statistics["slice_width"] = [width]
            found = self._describe_outside(statistics)
            near = (
                "" if any(_STATISTICS[name].label in found for name in _SPACINGS) else self._describe_near(statistics)
            )
            # Not warn(): a server would show the warning only the first time that a scan is sent.
            if near:
                warnings.warn_explicit(f"{file}: {near}.", Notice, __file__, 0)
            if found:
                summary = f"{file}: unlike the training scans in {', '.join(found)}."
                message = "\n  ".join([summary, *found.values(), "Compare with cubic interpolation."])
                warnings.warn_explicit(message, UserWarning, __file__, 0)
            unlike = [f"unlike the training scans in {', '.join(found)}"] if found else []
            d["outside_training"] = ", ".join([*unlike, *[near] * bool(near)])
        return d

    def _describe_near(self, statistics: Mapping[str, Sequence[float]]) -> str:
        """By how much voxel sizes are outside of their range; empty if by little."""
        finer, coarser = 1.0, 1.0
        for name in _SPACINGS:
            low, high = self.training_range.get(name, (0.0, np.inf))
            finer = max(finer, low / min(statistics[name]))
            coarser = max(coarser, max(statistics[name]) / high)
        factor, word = max((finer, "smaller"), (coarser, "larger"))
        return f"voxels are {factor:.2f} times {word} than in training" if factor > _OUTSIDE else ""

    def _describe_outside(self, statistics: Mapping[str, Sequence[float]]) -> dict[str, str]:
        """A text for each statistic with values outside of its range, by its label; NaN is never outside."""
        # Interpolation takes noise too.
        interpolated = any(min(statistics[n]) < self.training_range.get(n, (-np.inf,))[0] for n in self.kept)
        harmless = {*self.kept, "noise"} if interpolated else self.kept
        found = {}
        for name, values in statistics.items():
            known, (low, high) = _STATISTICS[name], self.training_range.get(name, (-np.inf, np.inf))
            (least, most), trained = known.scans, f"trained on {low:.3g} to {high:.3g}{known.unit}"
            sides = (
                (min(values) < low / known.far[0] and name not in harmless, trained, known.below),
                (max(values) > high * known.far[1], trained, known.above),
                (min(values) < least, f"scans have at least {least}{known.unit}", known.below),
                (max(values) > most, f"scans have at most {most}{known.unit}", known.above),
            )
            for is_outside, expected, meaning in sides:
                if is_outside:
                    formatted = " and ".join(dict.fromkeys(f"{value:.3g}" for value in values))
                    found[known.label] = f"{known.label}: {formatted}{known.unit}, {expected}; {meaning}."
        return found


def compute_scan_statistics(
    volume: torch.Tensor | np.ndarray, affine: torch.Tensor | np.ndarray
) -> dict[str, list[float]]:
    """Compute statistics of resolution, noise and contrast, to compare a scan with training scans.

    All intensities are in units of the volume's own 99.9th percentile. Tissue is what is brighter than Otsu's
    threshold.

    ``in_plane_spacing``, ``slice_spacing``
        Spacing of the voxels in mm.
    ``noise``
        :func:`common.physics.noise.estimate_noise_in_tissue`.
    ``in_plane_detail``, ``slice_detail``
        Root of the mean power between 0.8 and 1 of the Nyquist frequency along an axis, over that between 0.4 and 0.6,
        after a Hann window. 0.2 to 0.7 in scans as acquired, and 0.03 to 0.16 with zero-filled k-space, to which many
        scanners interpolate by default, or after other interpolation. NaN with fewer than 8 voxels along the axis.
    ``tissue_median``, ``tissue_spread``
        Median of the tissue, and its interquartile range over the median.
    ``tissue_share``, ``tissue_voxels``
        Part of the box around the tissue that is tissue, and its number of voxels, in thousands.

    Args:
        volume: ``(1, X, Y, Z)``, slabs or slices along the last axis, 0 or a little more in air.
        affine: 4x4, voxel to world in mm.

    Returns:
        The values of each statistic: two for those in plane, one for each axis, else one. NaN if a value is undefined,
        as in a constant volume.

    References:
        Bernstein et al., Effect of windowing and zero-filled reconstruction of MRI data on spatial resolution and
        acquisition strategy, JMRI 2001.
    """
    spacing = voxel_sizes(np.asarray(affine, dtype=np.float64))
    values = torch.as_tensor(volume)[0].cpu().float().numpy()
    bright = np.quantile(values, 0.999)
    if bright <= 0:
        bright = values.max()
    if bright > 0:
        values = values / np.float32(bright)
    # The brightest voxels would move the threshold.
    is_tissue = find_tissue(values.clip(0, 1))
    tissue = values[is_tissue]
    low, median, high = np.quantile(tissue, [0.25, 0.5, 0.75]) if tissue.size else [np.nan] * 3
    places = [np.flatnonzero(is_tissue.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    box = np.prod([np.ptp(place) + 1 for place in places]) if tissue.size else np.nan
    detail = [_measure_detail(values, axis) for axis in range(3)]
    statistics = {
        "in_plane_spacing": spacing[:2],
        "slice_spacing": spacing[2:],
        "noise": [estimate_noise_in_tissue(values)],
        "in_plane_detail": detail[:2],
        "slice_detail": detail[2:],
        "tissue_median": [median],
        "tissue_spread": [(high - low) / median],
        "tissue_share": [tissue.size / box],
        "tissue_voxels": [tissue.size / 1000],
    }
    return {name: [float(value) for value in numbers] for name, numbers in statistics.items()}


def widen_range(statistics: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """The range of volumes' statistics, from their smallest over 1.25 to their largest times 1.25.

    Another volume from the same source has a chance of 2 in n + 1 to be outside of the range of n volumes, in each
    statistic: the reason for the margin.

    Args:
        statistics: of each volume, from :func:`compute_scan_statistics`.

    Returns:
        Lowest and highest value, to three digits, of each statistic on which gains depend. Statistics that no volume
        defines are left out.
    """
    widened: dict[str, list[float]] = {}
    for volume_statistics in statistics:
        for name, values in volume_statistics.items():
            if not name.startswith("tissue"):
                widened.setdefault(name, []).extend(value for value in values if np.isfinite(value))
    return {
        name: [float(f"{limit:.3g}") for limit in (min(values) / _MARGIN, max(values) * _MARGIN)]
        for name, values in widened.items()
        if values
    }


def _measure_detail(values: np.ndarray, axis: int) -> float:
    size = values.shape[axis]
    if size < _FEWEST:
        return np.nan
    window = np.hanning(size + 2)[1:-1].astype(np.float32)
    lines = np.moveaxis(values, axis, -1)
    spectrum = rfft((lines - lines.mean(axis=-1, keepdims=True)) * window, axis=-1)
    power: Any = np.mean(spectrum.real**2 + spectrum.imag**2, axis=(0, 1), dtype=np.float64)
    frequency = np.arange(power.size) / (size / 2)
    inner, outer = (power[(frequency >= low) & (frequency <= high)].mean() for low, high in (_INNER, _OUTER))
    return np.sqrt(outer / inner) if inner > 0 else np.nan
