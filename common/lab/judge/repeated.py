"""A scan that was repeated: how much two results of one person differ, against how much their scans do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from nibabel.affines import voxel_sizes
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from ...geometry.nearest import sample_nearest
from ...geometry.registration.stacks import register_stacks
from ...geometry.resampling import SplineResampling
from ...geometry.rigid import find_half_way
from ...program.volume import Volume, check_on_scan
from ...reports.planes import to_ras
from ...stacks.brightness import BrightnessField
from .assessment import Assessment, Judgement, Rows
from .left_out import cut_to_data, make_stack, read_thickness
from .person import Person, join_tissue
from .pictures import draw_differences

_FEWEST = 100  # voxels of a region
_ALL = "all but air"
_SHOWN = 70.0  # mm that the picture shows

ScanPair = tuple[np.ndarray, np.ndarray]


class Repeated(Assessment):
    """Two scans of one person, and the result of each: how much the results differ, against how much the scans do."""

    name = "repeated"
    question = "How much do the results of two scans of one person differ, against how much the scans do?"
    columns: ClassVar[Mapping[str, str]] = {
        "region": "where; all scans and results lie on one grid half way between the two, and are blurred alike",
        "ml": "volume of the region",
        "scan_difference": "% of the root mean square of tissue in the first scan: root mean square difference of the "
        "scans, interpolated",
        "result_difference": "% likewise: of the results",
        "ratio": "result_difference / scan_difference; above 1 the results add what does not repeat",
        "ratio_in_band": "the same for what the scan's voxels can hold",
        "scan_correlation": "of the scans, interpolated",
        "result_correlation": "of the results",
        "added": "% likewise: root mean square of the detail beyond what the scan's voxels can hold",
        "added_correlation": "of this detail in the two results: 0 is noise or made up; 1 repeats, as real detail "
        "does, and what a network makes up from the same anatomy",
        "factor": "mean of the smooth field by which the second scan and its result are multiplied",
        "shift": "mm that the second scan was moved; of one person, so there is no interval over people",
        "turn": "degrees that it was turned",
    }
    asked_by = ("repeated",)
    by = ("region",)

    def __init__(self, person: Person, given: Mapping[str, Any]) -> None:
        self.person = person
        self.scans: list[Volume] = given["repeated"]
        if not len(self.scans) == len(person.results) == 2:
            raise ValueError(
                f"judge: --repeated names {len(self.scans)} scans for {len(person.results)} results; expected "
                "first.nii.gz,second.nii.gz and the result of each in this order."
            )
        pairs = zip(self.scans, person.results, strict=True)
        self.visits = [Person(person.name, [result], scan=scan) for scan, result in pairs]
        for visit, scan in zip(self.visits, self.scans, strict=True):
            try:
                visit.check({"--scan": scan})
                check_on_scan(visit.results[0], scan)
            except ValueError as error:
                place = f"--repeated, {self.scans[0].name} for {person.results[0].name} and so on"
                raise ValueError(f"judge: {place}: {str(error).removeprefix('judge: ')}") from None

    def judge(self) -> Judgement:
        scans, results = self.scans, self.person.results
        first, second = (make_stack(cut, read_thickness(cut)) for cut in map(cut_to_data, scans))
        found = register_stacks(first, second, is_rigid=True)
        if found.misfit is not None:
            raise ValueError(
                f"judge: --repeated {scans[0].name} and {scans[1].name} do not fit: {found.misfit}. Name two scans "
                "of one person and contrast."
            )
        turned = [to_ras(each.voxels, each.affine) for each in results]
        size, places = turned[1][0].shape, find_half_way(turned[0][1], turned[1][1], turned[1][0].shape, found.matrix)
        resamplings = [
            SplineResampling(voxels.shape, size, place) for (voxels, _), place in zip(turned, places, strict=True)
        ]

        def move(volumes: list[np.ndarray]) -> ScanPair:
            moved = []
            for voxels, result, resampling in zip(volumes, results, resamplings, strict=True):
                ras = np.ascontiguousarray(to_ras(voxels, result.affine)[0], dtype=np.float32)
                moved.append(resampling(torch.from_numpy(ras)).numpy())
            return moved[0], moved[1]

        factors = [scan.spacing / result.spacing for scan, result in zip(scans, results, strict=True)]
        cubic = move([visit.cubic.voxels for visit in self.visits])
        sharp = move([result.voxels for result in results])
        within = move([select_band(result.voxels, each) for result, each in zip(results, factors, strict=True)])
        inside = np.all([each.find_inside(margin=0.0).numpy() for each in resamplings], axis=0)
        grid = turned[0][1] @ places[0]
        regions = {
            name: sample_nearest(mask, results[0].affine, size, grid) & inside
            for name, mask in self.person.regions.items()
        }
        tissue = join_tissue(regions)
        brightness = float(np.sqrt(np.square(cubic[0][tissue], dtype=np.float64).mean()))
        counts = torch.from_numpy(tissue.astype(np.float32))
        field = BrightnessField(torch.from_numpy(cubic[0]), torch.from_numpy(cubic[1]), counts, voxel_sizes(grid))
        gain = field.evaluate(size).numpy()
        cubic, sharp, within = ((one, gain * other) for one, other in (cubic, sharp, within))
        added = sharp[0] - within[0], sharp[1] - within[1]

        rows: Rows = []
        for name, mask in {_ALL: tissue, **regions}.items():
            if mask.sum() < _FEWEST:
                continue
            scan, result = (100 / brightness * measure_difference(*pair, mask) for pair in (cubic, sharp))
            own = 100 / brightness * measure_difference(*within, mask)
            detail = np.sqrt(np.mean([np.mean(each[mask] ** 2) for each in added]))
            rows.append(
                {
                    "result": " and ".join(each.label for each in results),
                    "method": "results",
                    "region": name,
                    "ml": float(mask.sum() * abs(np.linalg.det(grid[:3, :3])) / 1000),
                    "scan_difference": scan,
                    "result_difference": result,
                    "ratio": result / scan if scan else None,
                    "ratio_in_band": own / scan if scan else None,
                    "scan_correlation": correlate_within(*cubic, mask),
                    "result_correlation": correlate_within(*sharp, mask),
                    "added": float(100 / brightness * detail),
                    "added_correlation": correlate_within(*added, mask),
                    "factor": field.mean,
                    "shift": float(np.linalg.norm(found.motion[:3])),
                    "turn": float(np.degrees(Rotation.from_matrix(found.matrix[:3, :3]).magnitude())),
                }
            )
        figure = self._draw({"scans, interpolated": cubic, "results": sharp, "added detail": added}, tissue, grid)
        return Judgement(rows, {f"{self.person.name}_repeated": figure})

    def _draw(self, pairs: dict[str, ScanPair], tissue: np.ndarray, grid: np.ndarray) -> Figure:
        """Both of each pair and their difference, in a part of a plane that cuts the slices of the scan."""
        spacing, coarse = voxel_sizes(grid), self.scans[0]
        across = int(np.abs(coarse.affine[:3, int(np.argmax(coarse.spacing))]).argmax())
        normal = 1 if across == 2 else 2
        middle = ndimage.center_of_mass(tissue)
        box: list[Any] = [
            slice(max(0, round(m - _SHOWN / mm / 2)), round(m + _SHOWN / mm / 2) + 1)
            for m, mm in zip(middle, spacing, strict=True)
        ]
        box[normal] = round(middle[normal])
        rows = {}
        for name, pair in pairs.items():
            first, second = (volume[tuple(box)] for volume in pair)
            is_signed = name == "added detail"
            rows[name] = [(first, is_signed), (second, is_signed), (second - first, True)]
        columns = [*(result.label for result in self.person.results), "second - first"]
        return draw_differences(f"{self.person.name}, repeated", columns, rows, spacing, normal)


def select_band(volume: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """The part of a volume that its scan's voxels can hold: waves up to half a cycle per voxel of the scan.

    The volume is mirrored at its borders, so that these do not ring.

    Args:
        volume: ``(X, Y, Z)``.
        factors: its voxels per voxel of the scan along each axis, at least 1.

    Returns:
        The part; volume minus part is the detail that was added.
    """
    waves = fft.dctn(np.asarray(volume, dtype=np.float32), norm="ortho")
    for axis, (size, factor) in enumerate(zip(volume.shape, factors, strict=True)):
        np.moveaxis(waves, axis, 0)[round(size / factor) :] = 0
    return fft.idctn(waves, norm="ortho")


def correlate_within(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Pearson's correlation of two volumes within a mask; NaN if one is constant there."""
    a, b = first[mask].astype(np.float64), second[mask].astype(np.float64)
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 1 and np.ptp(a) and np.ptp(b) else float("nan")


def measure_difference(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """The root mean square difference of two volumes within a mask."""
    return float(np.sqrt(np.mean(np.square(first[mask].astype(np.float64) - second[mask]))))
