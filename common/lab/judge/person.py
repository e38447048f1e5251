"""The results of one person, and what all assessments need of them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.ndimage import gaussian_filter

from ...geometry.gaussian import FWHM_PER_SIGMA
from ...geometry.labels import resample_labels
from ...geometry.nearest import sample_nearest
from ...geometry.registration.one_person import FLAT, LEAST_VOLUME_CORRELATION, WINDOW
from ...metrics.baseline import interpolate_cubic
from ...metrics.brightness_classes import divide_by_brightness
from ...program.volume import Volume, is_made_of, measure_factors
from .segmentation import Segmenter, explain_no_labels

_COARSE = 2.0  # mm of sampling of local correlation
_EQUAL = 1e-3  # of the range: copies of one volume differ less, in rounding


@dataclass
class Person:
    """The results of one person.

    Attributes:
        name: of the person.
        results: super-resolved volumes.
        scan: the scan that they were made of.
        hr: the truth on their grid.
        labels: the user's own segmentation: a pattern of files, or a command.
        anatomy: whether the volumes show a brain that is to be segmented.
        units: how HR's units differed from the scan's, in words; None if they did not.
    """

    name: str
    results: list[Volume]
    scan: Volume | None = None
    hr: Volume | None = None
    labels: str | None = None
    anatomy: bool = False
    units: str | None = None

    def __post_init__(self) -> None:
        if len({result.label for result in self.results}) < len(self.results):
            for result in self.results:
                result.label = result.name

    @cached_property
    def cubic(self) -> Volume:
        """The scan's cubic interpolation on the results' grid."""
        assert self.scan is not None
        if (found := measure_factors(self.scan, self.results[0])) is None:
            result = self.results[0]
            placed = self.scan.place_on_grid(result)
            if (beyond := self.scan.place_on_grid(result, repeated=0).missing) is not None:
                placed.voxels[beyond & (result.voxels == 0)] = 0  # it ends where the result does
            return replace(placed, name="cubic", label="cubic", metadata={})
        return Volume("cubic", interpolate_cubic(self.scan.voxels, *found), self.results[0].affine, {})

    @property
    def methods(self) -> dict[str, Volume]:
        """The scan's interpolation, if there is a scan, and the results, by names that are the same for all persons."""
        methods = {"cubic": self.cubic} if self.scan is not None else {}
        return methods | {f"result {i}": result for i, result in enumerate(self.results, 1)}

    @cached_property
    def regions(self) -> dict[str, np.ndarray]:
        """Masks on the results' grid, by name, of HR or else the scan's interpolation or else the first result.

        They are the tissues of the brain with --anatomy, the user's regions with --labels, else classes of brightness.
        """
        if self.segmenter is None:
            return divide_by_brightness(self._reference.voxels)
        for volume in (self.hr, self.cubic if self.scan else None, self.scan, *self.results):
            if volume is not None and (found := self.segmenter.segment(volume)):
                grid = self.results[0]
                if not found.volume.is_on_grid_of(grid):
                    labels = resample_labels(found.labels, found.volume.affine, grid.voxels.shape, grid.affine)
                    found = replace(found, labels=labels)
                return {name: found.get_mask(name) for name in found.names}
        raise ValueError(explain_no_labels(str(self.labels), self.results[0]))

    @property
    def tissue(self) -> np.ndarray:
        """The mask of all regions but air, where HR is known."""
        tissue = join_tissue(self.regions)
        return tissue if self.hr is None or self.hr.missing is None else tissue & ~self.hr.missing

    @cached_property
    def segmenter(self) -> Segmenter | None:
        """What segments the volumes; None without --anatomy and --labels."""
        return Segmenter(self.labels, self._reference) if self.anatomy or self.labels is not None else None

    @property
    def _reference(self) -> Volume:
        """HR, or else the scan's interpolation, or else the first result."""
        return self.hr or (self.cubic if self.scan else self.results[0])

    def check(self, others: Mapping[str, Volume], repeated: Sequence[Volume] = ()) -> None:
        """Check that the results were made of the scan, and that all volumes show one person in one place.

        Args:
            others: all that the results are compared with, by the options that name them.
            repeated: the scans of which the results were made, if these are of several visits.
        """
        given = [("the result", each) for each in self.results] + [("--repeated", each) for each in repeated]
        _check_repetition([*given, *others.items()], may_be_equal=not repeated)
        _check_finite(self.results, others)
        for result in self.results:
            if self.scan is not None:
                is_made_of(result, self.scan)
                measure_factors(self.scan, result)
            for option, volume in (("--scan", self.scan), ("--hr", self.hr)):
                if volume is None:
                    continue
                if not result.is_on_grid_of(self.results[0]):
                    raise ValueError(
                        f"judge: the results lie on different grids; with {option}, judge each grid in its own run."
                    )
                _check_place(self.cubic if volume is self.scan else volume, result, f"{option} {volume.name}")


def _check_place(volume: Volume, result: Volume, name: str) -> None:
    """Refuse two volumes on one grid that do not show one person in one place.

    Args:
        volume, result: to be compared.
        name: of the first, for the message.
    """
    if (found := correlate_locally(volume, result)) < LEAST_VOLUME_CORRELATION:
        advice = "check which files belong together"
        if references := [stack for stack, known in result.stacks.items() if known.get("Reference")]:
            advice = f"of its stacks {references[0]}, the reference, lies on it as it is: name that one"
        raise ValueError(
            f"judge: {name} and {result.name} have a local correlation of {found:.2f}, expected at least "
            f"{LEAST_VOLUME_CORRELATION} for one person in one place; {advice}."
        )


def join_tissue(regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """The mask of all regions but air."""
    return np.any([mask for name, mask in regions.items() if name != "air"], axis=0)


def correlate_locally(first: Volume, second: Volume) -> float:
    """The correlation of two volumes on one grid, each standardised in a Gaussian window of 8 mm.

    Brightness fields and gains have no influence, nor has the outline that all heads share. The volumes are sampled
    at about 2 mm, where neither is missing. It is 0 where either is constant.
    """
    step = tuple(slice(None, None, max(1, round(_COARSE / mm))) for mm in first.spacing)
    sigma = [WINDOW / mm / part.step for mm, part in zip(first.spacing, step, strict=True)]
    standardised, there = [], np.ones(first.voxels[step].shape, bool)
    for volume in (first, second):
        there &= True if volume.missing is None else ~volume.missing[step]
        voxels = gaussian_filter(volume.voxels, [_COARSE / FWHM_PER_SIGMA / mm for mm in volume.spacing])[step]
        difference = voxels - gaussian_filter(voxels, sigma)
        spread = np.sqrt(gaussian_filter(difference**2, sigma))
        flat = FLAT * float(np.quantile(voxels, 0.99))
        standardised.append(difference / np.sqrt(spread**2 + flat**2 + np.finfo(np.float32).tiny))
    pair = [each[there].astype(np.float64) for each in standardised]
    return float(np.corrcoef(pair)[0, 1]) if there.any() and all(np.ptp(each) for each in pair) else 0.0


def _check_repetition(given: Sequence[tuple[str, Volume]], may_be_equal: bool) -> None:
    """Refuse a volume that is named in two roles, also under another name; two results may be equal."""
    for (one, first), (other, second) in itertools.combinations(given, 2):
        if may_be_equal and one == other == "the result":
            continue
        if first.is_on_grid_of(second) and np.abs(first.voxels - second.voxels).max() <= _EQUAL * np.ptp(first.voxels):
            raise ValueError(
                f"judge: {one} {first.name} and {other} {second.name} are the same volume; check which is which."
            )


def _check_finite(results: Sequence[Volume], others: Mapping[str, Volume]) -> None:
    """Refuse volumes that are not finite in tissue, and warn of others."""
    for option, volume in [*(("the result", each) for each in results), *others.items()]:
        if volume.missing is None:
            continue
        inside, where = 0, ""
        # Another volume says where tissue is.
        if reference := next((each for each in (*others.values(), *results) if each is not volume), None):
            tissue = (~divide_by_brightness(reference.voxels)["air"]).astype(np.uint8)
            tissue = sample_nearest(tissue, reference.affine, volume.voxels.shape, volume.affine)
            inside, where = int(tissue[volume.missing].sum()), f" of {reference.name}"
        found = (
            f"{option} {volume.name}: {volume.missing.sum()} of {volume.missing.size} voxels are NaN or infinite, or "
            "beyond its field of view"
        )
        if inside:
            raise ValueError(
                f"judge: {found}, {inside} of them in the tissue{where}; expected numbers. Fill them, or crop all "
                "files to the rest."
            )
        warnings.warn(f"{found}, outside of tissue; they count as 0.", stacklevel=2)
