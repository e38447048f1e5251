"""A scan that was repeated: how much two results of one person differ, against how much their scans do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from nibabel.affines import voxel_sizes
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..geometry.resampling import SplineResampling, sample_nearest
from ..metrics.repeatability import correlate_within, measure_difference, select_band
from ..reports.differences import draw_differences
from ..reports.planes import to_ras
from ..stacks.brightness import BrightnessField
from ..stacks.half_way import find_half_way
from ..stacks.registration import register_stacks
from .judgement import Judgement, Question, Rows
from .left_out import cut_to_data, make_stack, read_thickness
from .person import Person

_FEWEST = 100  # voxels of a region
_ALL = "all but air"
_SHOWN = 70.0  # mm that the picture shows

ScanPair = tuple[np.ndarray, np.ndarray]


def judge_repeated(person: Person) -> Judgement:
    """Move scans and results half way to each other, by the motion of the scans, and compare them by region."""
    scans, results = person.repeated, person.results
    first, second = (make_stack(cut, read_thickness(cut)) for cut in map(cut_to_data, scans))
    found = register_stacks(first, second, is_rigid=True)
    if found.reason is not None:
        raise ValueError(
            f"judge: --repeated {scans[0].name} and {scans[1].name} do not fit: {found.reason}. Name two scans of one "
            "person and contrast."
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
    cubic = move([visit.cubic.voxels for visit in person.visits])
    sharp = move([result.voxels for result in results])
    within = move([select_band(result.voxels, each) for result, each in zip(results, factors, strict=True)])
    inside = np.all([each.find_inside(margin=0.0).numpy() for each in resamplings], axis=0)
    grid = turned[0][1] @ places[0]
    regions = {
        name: sample_nearest(mask, results[0].affine, size, grid) & inside for name, mask in person.regions.items()
    }
    tissue = np.any([mask for name, mask in regions.items() if name != "air"], axis=0)
    brightness = float(cubic[0][tissue].mean())
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
                "gain": field.mean,
                "shift": float(np.linalg.norm(found.motion[:3])),
                "turn": float(np.degrees(Rotation.from_matrix(found.matrix[:3, :3]).magnitude())),
            }
        )
    figure = _draw(person, {"scans, interpolated": cubic, "results": sharp, "added detail": added}, tissue, grid)
    return Judgement(rows, {f"{person.name}_repeated": figure})


def _draw(person: Person, pairs: dict[str, ScanPair], tissue: np.ndarray, grid: np.ndarray) -> Figure:
    """Both of each pair and their difference, in a part of a plane that cuts the slices of the scan."""
    spacing, coarse = voxel_sizes(grid), person.repeated[0]
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
    columns = [*(result.label for result in person.results), "second - first"]
    return draw_differences(f"{person.name}, repeated", columns, rows, spacing, normal)


REPEATED = Question(
    "repeated",
    "How much do the results of two scans of one person differ, against how much the scans do?",
    {
        "region": "where; all scans and results lie on one grid half way between the two, and are blurred alike",
        "ml": "volume of the region",
        "scan_difference": "% of the mean brightness of tissue: root mean square difference of the scans, interpolated",
        "result_difference": "% likewise: of the results",
        "ratio": "result_difference / scan_difference; above 1 the results add what does not repeat",
        "ratio_in_band": "the same for what the scan's voxels can hold",
        "scan_correlation": "of the scans, interpolated",
        "result_correlation": "of the results",
        "added": "% likewise: root mean square of the detail beyond what the scan's voxels can hold",
        "added_correlation": "of this detail in the two results: 0 is noise or made up; 1 repeats, as real detail "
        "does, and what a network makes up from the same anatomy",
        "gain": "mean of the smooth field by which the second scan and its result are multiplied",
        "shift": "mm that the second scan was moved; of one person, so there is no interval over people",
        "turn": "degrees that it was turned",
    },
    lambda person: bool(person.repeated),
    judge_repeated,
    by=("region",),
)
