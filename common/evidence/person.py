"""The files of one person, checked to belong together."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from .. import degradations
from ..geometry.affines import measure_factors
from ..geometry.gaussian import FWHM_PER_SIGMA
from ..geometry.resampling import sample_nearest
from ..io.formats import get_extension
from ..io.read import digest_voxels
from ..metrics import interpolate_cubic
from ..metrics.brightness_classes import divide_by_brightness
from ..reports import read_result_record
from ..transforms.labels import resample_labels
from .segmentation import Segmenter
from .volume import Volume

#: Least local correlation of two volumes of one person in one place; of two persons at most 0.49.
ONE_PERSON = 0.6
_COARSE, _WINDOW = 2.0, 8.0  # mm of sampling, and standard deviation of the window, of local correlation
_EQUAL = 1e-3  # of the range: copies of one volume differ less, in rounding
_FLAT = 0.03  # of the brightest: windows with a smaller standard deviation show nothing


@dataclass
class Person:
    """The files of one person.

    Attributes:
        name: of the person.
        results: super-resolved volumes.
        scan: the scan that they were made of.
        hr: the truth on their grid.
        left_out: a stack of the exam that no result knows.
        region: mask of what counts, on any grid.
        repeated: the two scans of which the two results were made.
        lesions: mask or label map of lesions, on any grid.
        interval: half widths of the interval of the first result.
        labels: the user's own segmentation: a pattern of files, or a command.
        anatomy: whether the volumes show a brain that is to be segmented.
        lpips: file of AlexNet's weights.
        insert_lesions: HR into which lesions are put; the results are then pairs, of the scans with and without them.
        scale: voxels of this HR for one of its scan, along its axes.
        bundle: the only one that may restore its scan; None for any.
        noise: standard deviation in parts of the tissue's median.
        device: where the network that restores it runs; None for the first GPU, if there is one.
    """

    name: str
    results: list[Volume]
    scan: Volume | None = None
    hr: Volume | None = None
    left_out: Volume | None = None
    region: Volume | None = None
    repeated: list[Volume] = field(default_factory=list)
    lesions: Volume | None = None
    interval: Volume | None = None
    labels: str | None = None
    anatomy: bool = False
    lpips: str | None = None
    insert_lesions: Volume | None = None
    scale: tuple[int, ...] = (2, 2, 2)
    bundle: str | None = None
    noise: float = 0.02
    device: str | None = None

    def __post_init__(self) -> None:
        if len({result.label for result in self.results}) < len(self.results):
            for result in self.results:
                result.label = result.name

    def check(self) -> None:
        """Check that the files belong together.

        Raises:
            ValueError: a result was not made of the scan, or does not lie on it; a volume is not finite in tissue, or
                named in two roles; HR or an interval lies on another grid; HR shows another person; or an interval
                has no HR.
        """
        if self.interval is not None and self.hr is None:
            raise ValueError(f"judge: --interval {self.interval.name} is compared with errors; give --hr FILE with it.")
        self._check_repetition()
        self._check_finite()
        if self.lpips is not None and self.hr is None:
            raise ValueError(f"judge: --lpips {self.lpips} compares with HR; give --hr FILE with it.")
        if self.region is not None and self.hr is None and self.left_out is None:
            raise ValueError(f"judge: --region {self.region.name} goes with --left_out or --hr; name one of them.")
        if self.interval is not None and len(self.results) > 1:
            raise ValueError(f"judge: --interval {self.interval.name} is of one result; name that result alone.")
        if self.scan is not None:
            for result in self.results:
                _check_origin(self.scan, result)
                self._measure_factors(result)
        if self.repeated:
            self._check_repeated()
        if self.left_out is not None and get_extension(Path(self.left_out.name)) is not None:
            for result in self.results:
                inputs = _read_record(result).get("Inputs")
                known = [each.get("Sha256") for each in inputs] if isinstance(inputs, list) else []
                if any(known) and digest_voxels(self.left_out.name) in known:
                    raise ValueError(
                        f"judge: {result.name} was made of --left_out {self.left_out.name}, so it foretells nothing; "
                        "super-resolve the other stacks without it."
                    )
        for option, volume in (("--hr", self.hr), ("--interval", self.interval)):
            if volume is None:
                continue
            for result in self.results:
                if not volume.is_on_grid_of(result):
                    raise ValueError(
                        f"judge: {option} {volume.name} with {volume.voxels.shape} voxels does not lie on the grid of "
                        f"{result.name} with {result.voxels.shape}; crop or resample it first."
                    )
        if self.scan is not None and any(not result.is_on_grid_of(self.results[0]) for result in self.results):
            raise ValueError(
                "judge: the results lie on different grids; with --scan, judge each grid in a run of its own."
            )
        seen = {"--hr": (self.hr, self.hr), "--scan": (self.scan, self.cubic if self.scan else None)}
        for option, (named, volume) in seen.items():
            if named is None or volume is None:
                continue
            for result in self.results:
                found = correlate_locally(volume, result)
                if found < ONE_PERSON:
                    raise ValueError(
                        f"judge: {option} {named.name} and {result.name} have a local correlation of {found:.2f}, "
                        f"expected at least {ONE_PERSON} for one person in one place; check which files belong "
                        "together."
                    )

    @cached_property
    def cubic(self) -> Volume:
        """The scan's cubic interpolation on the results' grid."""
        assert self.scan is not None
        factors, offset = self._measure_factors(self.results[0])
        voxels = interpolate_cubic(self.scan.voxels, factors, offset)
        return Volume("cubic", voxels, self.results[0].affine, {})

    @property
    def methods(self) -> dict[str, Volume]:
        """The scan's interpolation, if there is a scan, and the results, by names that are the same for all persons."""
        methods = {"cubic": self.cubic} if self.scan is not None else {}
        return methods | {f"result {i}": result for i, result in enumerate(self.results, 1)}

    @cached_property
    def degradation(self) -> degradations.Degradation:
        """The operator from the first result to the scan, from the result's JSON, else from the two grids.

        It acts on volumes with the axes of the files. Without a JSON it is k-space truncation where a sample at the end
        of each axis did not move, else a Gaussian profile.

        Raises:
            ValueError: when the JSON's operator leads to another grid than the scan's.
        """
        factors, offset = self._measure_factors(self.results[0])
        record = _read_record(self.results[0]).get("Degradation")
        if isinstance(record, Mapping) and hasattr(degradations, str(record.get("Class"))):
            return self._turn(_build_degradation(record), factors, offset)
        # A mirrored file has the first sample last.
        if all(float(f).is_integer() and o in (0, f - 1) for f, o in zip(factors, offset, strict=True)):
            return self._turn(degradations.KSpaceTruncation([int(f) for f in factors]), factors, offset)
        return degradations.GaussianProfile(factors)

    def _turn(
        self, degradation: degradations.Degradation, factors: Sequence[float], offset: Sequence[float]
    ) -> degradations.Degradation:
        """The same operator for the axes of the files, which a network may have turned."""
        for order, mirrored in itertools.product(
            itertools.permutations(range(3)), itertools.product((False, True), repeat=3)
        ):
            turned = degradations.TurnedDegradation(degradation, order, mirrored)
            if np.allclose([turned.factors, turned.offset], [factors, offset], atol=0.02):
                return turned
        assert self.scan is not None
        raise ValueError(
            f"judge: the JSON of {self.results[0].name} has a degradation with factors {list(degradation.factors)}, "
            f"but the voxels of --scan {self.scan.name} are {factors} times as large; give the scan it was made of."
        )

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
                if not volume.is_on_grid_of(grid):
                    labels = resample_labels(found.labels, volume.affine, grid.voxels.shape, grid.affine)
                    found = replace(found, labels=labels)
                return {name: found.get_mask(name) for name in found.names.values()}
        raise ValueError(f"judge: --labels {self.labels}: there is no file for any volume of {self.name}.")

    @cached_property
    def segmenter(self) -> Segmenter | None:
        """What segments the volumes; None without --anatomy and --labels."""
        return Segmenter(self.labels, self._reference) if self.anatomy or self.labels is not None else None

    @property
    def _reference(self) -> Volume:
        """HR, or else the scan's interpolation, or else the first result."""
        return self.hr or (self.cubic if self.scan else self.results[0])

    @property
    def tissue(self) -> np.ndarray:
        """All regions but air."""
        return np.any([mask for name, mask in self.regions.items() if name != "air"], axis=0)

    def sample_mask(self, mask: Volume, grid: Volume, option: str) -> np.ndarray:
        """The nearest labels of a mask on the grid of another volume, 0 outside."""
        places = np.linalg.inv(mask.affine) @ grid.affine
        index = np.indices(grid.voxels.shape).reshape(3, -1)
        at = places[:3, :3] @ index + places[:3, 3:]
        values = map_coordinates(mask.voxels, at, order=0, mode="grid-constant", cval=0.0).reshape(grid.voxels.shape)
        if not (values > 0).any():
            raise ValueError(
                f"judge: {option} {mask.name}: no voxel above 0 lies on {grid.name}; name a mask of this person."
            )
        return values

    @cached_property
    def visits(self) -> list[Person]:
        """Each of the two scans with the result that was made of it."""
        return [
            Person(self.name, [result], scan=scan) for scan, result in zip(self.repeated, self.results, strict=True)
        ]

    def _check_repetition(self) -> None:
        """Refuse a volume that is named in two roles, also under another name. Two results may be equal."""
        given = [("the result", each) for each in self.results] + [("--repeated", each) for each in self.repeated]
        given += [(option, each) for option, each in self._single.items() if each is not None]
        for (one, first), (other, second) in itertools.combinations(given, 2):
            if one == other == "the result" and not self.repeated:
                continue
            if first.is_on_grid_of(second) and np.abs(first.voxels - second.voxels).max() <= _EQUAL * np.ptp(
                first.voxels
            ):
                raise ValueError(
                    f"judge: {one} {first.name} and {other} {second.name} are the same volume; check which is which."
                )

    @property
    def _single(self) -> dict[str, Volume | None]:
        """The volumes that a result is compared with, by the options that name them."""
        return {
            "--hr": self.hr,
            "--scan": self.scan,
            "--left_out": self.left_out,
            "--insert_lesions": self.insert_lesions,
            "--interval": self.interval,
        }

    def _check_finite(self) -> None:
        """Refuse volumes that are not finite in tissue, and warn of others."""
        given = [("the result", each) for each in self.results]
        given += [(option, each) for option, each in self._single.items() if each is not None]
        for option, volume in given:
            if volume.missing is None:
                continue
            # Another volume says where tissue is.
            others = [each for _, each in (given[len(self.results) :] + given) if each is not volume]
            inside, where = 0, ""
            if others:
                tissue = (~divide_by_brightness(others[0].voxels)["air"]).astype(np.uint8)
                tissue = sample_nearest(tissue, others[0].affine, volume.voxels.shape, volume.affine)
                inside, where = int(tissue[volume.missing].sum()), f" of {others[0].name}"
            found = (
                f"{option} {volume.name}: {volume.missing.sum()} of {volume.missing.size} voxels are NaN or infinite"
            )
            if inside:
                raise ValueError(
                    f"judge: {found}, {inside} of them in the tissue{where}; expected numbers. Fill them, or crop all "
                    "files to the rest."
                )
            warnings.warn(f"{found}, outside of tissue; they count as 0.", stacklevel=2)

    def _check_repeated(self) -> None:
        if not len(self.repeated) == len(self.results) == 2:
            raise ValueError(
                f"judge: --repeated names {len(self.repeated)} scans for {len(self.results)} results; expected "
                "first.nii.gz,second.nii.gz and the result of each in this order."
            )
        for visit in self.visits:
            try:
                visit.check()
            except ValueError as error:
                place = f"--repeated, {self.repeated[0].name} for {self.results[0].name} and so on"
                raise ValueError(f"judge: {place}: {str(error).removeprefix('judge: ')}") from None

    def _measure_factors(self, result: Volume) -> tuple[list[float], list[float]]:
        """Voxels of a result per voxel of the scan, and where the scan's first voxel lies in voxels of the result."""
        assert self.scan is not None
        scan = self.scan
        if (found := measure_factors(scan.affine, scan.voxels.shape, result.affine, result.voxels.shape)) is None:
            raise ValueError(
                f"judge: {result.name} with {result.voxels.shape} voxels does not lie on --scan {scan.name} with "
                f"{scan.voxels.shape}: expected the same directions and field of view, and voxels of the same size or "
                "finer. Is it made from this scan?"
            )
        return found


def correlate_locally(first: Volume, second: Volume) -> float:
    """The correlation of two volumes on one grid, each standardised in a Gaussian window of 8 mm.

    Brightness fields and gains have no influence, nor has the outline that all heads share. The volumes are sampled
    at about 2 mm. It is 0 where either is constant.
    """
    step = tuple(slice(None, None, max(1, round(_COARSE / mm))) for mm in first.spacing)
    sigma = [_WINDOW / mm / part.step for mm, part in zip(first.spacing, step, strict=True)]
    standardised = []
    for volume in (first, second):
        voxels = gaussian_filter(volume.voxels, [_COARSE / FWHM_PER_SIGMA / mm for mm in volume.spacing])[step]
        difference = voxels - gaussian_filter(voxels, sigma)
        spread = np.sqrt(gaussian_filter(difference**2, sigma))
        flat = _FLAT * float(np.quantile(voxels, 0.99))
        standardised.append(difference / np.sqrt(spread**2 + flat**2 + np.finfo(np.float32).tiny))
    pair = [each.ravel().astype(np.float64) for each in standardised]
    return float(np.corrcoef(pair)[0, 1]) if all(np.ptp(each) for each in pair) else 0.0


def _build_degradation(record: Any) -> Any:
    """The operator that :func:`common.data.provenance.describe_settings` has described."""
    if isinstance(record, Mapping):
        settings = {key: _build_degradation(value) for key, value in record.items() if key != "Class"}
        if "kernel" in settings:
            settings["kernel"] = torch.tensor(settings["kernel"])
        return getattr(degradations, str(record["Class"]))(**settings)
    return [_build_degradation(each) for each in record] if isinstance(record, list) else record


def _read_record(result: Volume) -> dict[str, Any]:
    """What the JSON of a result says about how it was made; empty if there is none."""
    return (read_result_record(result.name) or {}) if get_extension(Path(result.name)) else {}


def _check_origin(scan: Volume, result: Volume) -> None:
    """Refuse a result whose JSON says that it was made of other files than the scan."""
    inputs = _read_record(result).get("Inputs")
    if get_extension(Path(scan.name)) is None or not isinstance(inputs, list):
        return
    if not all("File" in each for each in inputs):
        return
    if digest_voxels(scan.name) not in [each.get("Sha256") for each in inputs]:
        raise ValueError(
            f"judge: {result.name} was made of {inputs[0]['File']}, whose voxels are not those of --scan {scan.name}; "
            "name that scan, or super-resolve this one again."
        )
