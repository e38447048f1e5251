"""Compare a scan with the scans that weights were trained on, by a few statistics."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from nibabel.affines import voxel_sizes
from scipy.fft import rfft
from skimage.filters import threshold_otsu

from ...errors import Notice
from ...io.affines import ROUNDING
from ...physics.noise import estimate_noise_in_tissue

_UNTESTED = "Not tested: compare with cubic interpolation."
_ONLY_HEADS = "Only heads were tested: compare with cubic interpolation."
_NEAR = "Near the range: nothing to do."
_HELD = "In tests of shipped weights the gain held: nothing to do."
_LOST = "In tests of shipped weights the gain was lost: compare with cubic interpolation."


class _Side(NamedTuple):
    """A side of a statistic's range.

    Attributes:
        meaning: what values there may mean.
        far: factor beyond the range up to which there is a notice, and a warning beyond it. Where it is above 1.1, the
            gain over cubic interpolation held so far in six heads (``tests/benchmarks/out_of_range.py``), except
            for voxels that are smaller, which were not tested. Up to 1.1 is near the range.
        advice: what to do on a warning.
        near: what to do on a notice.
    """

    meaning: str
    far: float = 1.1
    advice: str = _ONLY_HEADS
    near: str = _NEAR


_ZERO_FILLED = _Side("k-space is empty outside: interpolated, zero-filled or blurred", advice=_LOST)
_SHARP = "sharpened, aliased, or no scan at all"
_SMALL = _Side("voxels smaller than those that the weights sharpen", 1.5, _UNTESTED, _UNTESTED)
_LARGE = _Side("voxels larger than those that the weights sharpen", 1.5, _UNTESTED, _HELD)
# Name and unit of each statistic, and the values below and above its range.
_STATISTICS = {
    "in_plane_spacing": ("spacing in plane", " mm", _SMALL, _LARGE),
    "slice_spacing": ("spacing across slabs or slices", " mm", _SMALL, _LARGE),
    "noise": (
        "noise",
        "",
        _Side(
            "denoised, smoothed or no scan",
            advice="In tests of shipped weights half of the gain was lost: give the scan as acquired.",
        ),
        _Side("very noisy", advice=_LOST),
    ),
    "in_plane_detail": ("detail in plane", "", _ZERO_FILLED, _Side(_SHARP, advice=_LOST)),
    "slice_detail": (
        "detail across slabs or slices",
        "",
        _ZERO_FILLED,
        # Fine-tuned weights gained at 1.09, those that are not lost their gain there.
        _Side(f"gaps between slices, {_SHARP}", 1.11, _LOST),
    ),
    "air": (
        "brightness of air",
        "",
        _Side("air set to 0, or values below 0", advice=_UNTESTED),
        _Side("another part of the body, cropped to tissue, or inverted contrast", 1.5, near=_HELD),
    ),
    "tissue_median": (
        "brightness of tissue",
        "",
        _Side("some voxels are far brighter than most tissue (fluid, vessels, metal)", 1.25, _LOST, _HELD),
        _Side("a mask, a label map, or inverted contrast"),
    ),
    "tissue_spread": (
        "contrast of tissue",
        "",
        _Side("tissues hardly differ: CT, a mask, a label map, or inverted contrast", 1.5, near=_HELD),
        _Side("another contrast, or strong shading"),
    ),
    "tissue_volume": (
        "volume of tissue",
        " l",
        _Side("a part of the head, another part of the body, a child, or an animal", 2.4, near=_HELD),
        _Side("more than a head, or inverted contrast"),
    ),
}
# Ranges are widened by this factor. That of air is widened further: with zeroed background it is 0 in all scans.
_MARGIN, _AIR_MARGIN = 1.25, 0.02
# Bands of k-space along an axis, in Nyquist frequencies, and the fewest voxels whose spectrum has both.
_INNER, _OUTER, _FEWEST = (0.4, 0.6), (0.8, 1.0), 8


class CheckTrainingRanged(MapTransform):
    """Warn of volumes whose statistics are outside of the training range of the weights.

    A warning names the file and each statistic that is far outside of its range, or where the gain over cubic
    interpolation was lost in tests: value, range, possible meaning, and what to do. A :class:`common.errors.Notice`
    names the others. No volume is changed or refused. The statistics do not see pathology, motion and artefacts.

    Both are repeated if the same volume comes again; ``-W ignore`` and other filters apply.

    Args:
        keys: of volumes ``(1, X, Y, Z)`` with an affine in mm, slabs or slices along the last axis, after
            :class:`SliceAxisd` and :class:`NormaliseVolumed`.
        training_range: lowest and highest value for names of :func:`compute_scan_statistics`, as training writes them
            into the weights' overlay. Other statistics are not checked. None checks nothing.
        scale: voxels of the result for a voxel of the scan along each axis. Along axes that are not refined, empty
            outer k-space took no gain in tests.
        allow_missing_keys: whether an entry may lack a key.

    Raises:
        ValueError: when ``training_range`` has an unknown name, or a value that is not an ascending pair of numbers.
    """

    def __init__(
        self,
        keys: KeysCollection,
        training_range: Mapping[str, Sequence[float]] | None,
        scale: Sequence[float] = (2, 2, 2),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = {"in_plane_detail": max(scale[:2]), "slice_detail": scale[2]}
        self.training_range = {} if training_range is None else training_range
        if not isinstance(self.training_range, Mapping):
            raise ValueError(f"training_range is {training_range!r}, expected a range for each statistic, or null.")
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
        for key in self.key_iterator(data) if self.training_range else ():
            volume = data[key]
            statistics = compute_scan_statistics(volume, volume.affine)
            file = volume.meta.get("filename_or_obj", key)
            harmless = self._list_harmless(statistics)
            found = [
                finding
                for name, values in statistics.items()
                for finding in self._list_outside(name, values, np.inf if name in harmless else None)
            ]
            for category, degree in ((UserWarning, ""), (Notice, "slightly ")):
                if some := {label: text for grade, label, text in found if grade is category}:
                    summary = f"{file}: {degree}unlike the training scans in {', '.join(some)}."
                    message = "\n  ".join([summary, *some.values()])
                    # Not warn(): a server would show the warning only the first time that a scan is sent.
                    warnings.warn_explicit(message, category, __file__, 0)
        return dict(data)

    def _list_harmless(self, statistics: Mapping[str, Sequence[float]]) -> list[str]:
        """What took no gain in tests however low: detail along axes that the weights keep, and noise with it."""
        kept = [name for name, scale in self.scale.items() if scale == 1]
        low = [name for name in kept if min(statistics[name]) < self.training_range.get(name, (-np.inf,))[0]]
        return [*kept, "noise"] if low else kept

    def _list_outside(
        self, name: str, values: Sequence[float], far: float | None
    ) -> list[tuple[type[Warning], str, str]]:
        """Category, label and text for each side of its range where a statistic has values; NaN is never outside.

        ``far`` takes the place of the factor for values below the range.
        """
        low, high = self.training_range.get(name, (-np.inf, np.inf))
        label, unit, below, above = _STATISTICS[name]
        formatted = " and ".join(dict.fromkeys(f"{value:.3g}" for value in values))
        about = f"{label}: {formatted}{unit}, trained on {low:.3g} to {high:.3g}{unit}"
        found = []
        if min(values) < low - ROUNDING * abs(low):
            found.append((below, low > 0 and min(values) > low / (far or below.far)))
        if max(values) > high + ROUNDING * abs(high):
            found.append((above, 0 < max(values) < high * above.far))
        return [
            (Notice, label, f"{about}; {side.meaning}. {_HELD if far else side.near}")
            if is_near
            else (UserWarning, label, f"{about}; {side.meaning}. {side.advice}")
            for side, is_near in found
        ]


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
    ``air``
        The 25th percentile of the volume.
    ``tissue_median``, ``tissue_spread``
        Median of the tissue, and its interquartile range over the median.
    ``tissue_volume``
        In litres; it does not depend on the amount of air in the field of view.

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
    air, bright = np.quantile(values, [0.25, 0.999])
    if bright <= 0:
        bright = values.max()
    if bright > 0:
        values, air = values / np.float32(bright), air / bright
    # The brightest voxels would move the threshold. Flat, because scikit-image takes three or four slices for colours.
    tissue = values[values > threshold_otsu(values.clip(0, 1).ravel())]
    low, median, high = np.quantile(tissue, [0.25, 0.5, 0.75]) if tissue.size else [np.nan] * 3
    detail = [_measure_detail(values, axis) for axis in range(3)]
    statistics = {
        "in_plane_spacing": spacing[:2],
        "slice_spacing": spacing[2:],
        "noise": [estimate_noise_in_tissue(values)],
        "in_plane_detail": detail[:2],
        "slice_detail": detail[2:],
        "air": [air],
        "tissue_median": [median],
        "tissue_spread": [(high - low) / median],
        "tissue_volume": [tissue.size * spacing.prod() / 1e6],
    }
    return {name: [float(value) for value in numbers] for name, numbers in statistics.items()}


def widen_range(statistics: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """The range of volumes' statistics, from their smallest over 1.25 to their largest times 1.25.

    Another volume from the same source has a chance of 2 in n + 1 to be outside of the range of n volumes, in each
    statistic. This is the reason for the margin. It is a factor because the statistics are positive with proportional
    scatter. The range of air is extended by another 0.02.

    Args:
        statistics: of each volume, from :func:`compute_scan_statistics`.

    Returns:
        Lowest and highest value of each statistic, to three digits. Statistics that no volume defines are left out.
    """
    widened: dict[str, list[float]] = {}
    for volume_statistics in statistics:
        for name, values in volume_statistics.items():
            widened.setdefault(name, []).extend(value for value in values if np.isfinite(value))
    ranges = {}
    for name, values in widened.items():
        if values:
            besides = _AIR_MARGIN if name == "air" else 0.0
            # Air may be below 0 in LR that was made by truncating k-space.
            low, high = min(values), max(values)
            low, high = min(low / _MARGIN, low * _MARGIN) - besides, max(high * _MARGIN, high / _MARGIN) + besides
            ranges[name] = [float(f"{low:.3g}"), float(f"{high:.3g}")]
    return ranges


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
