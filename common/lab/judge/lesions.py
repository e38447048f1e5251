"""Do given lesions stay: their contrast and volume in scan, interpolation and results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import distance_transform_edt, find_objects, label

from ...geometry.robust import SIGMA_PER_MAD
from ...metrics.brightness_classes import divide_by_brightness
from ...program.volume import Volume
from .assessment import Assessment, Judgement, Rows
from .person import Person
from .pictures import draw_cutouts

_DRAWN = 8  # lesions in the picture, the largest
_MARGIN = 12.0  # mm around a lesion in the picture
_GAP, _RING = 2.0, 5.0  # mm from the lesion, between which healthy tissue is looked for
_LEAST = 8  # voxels of healthy tissue


class Lesions(Assessment):
    """A mask or label map of lesions, on any grid: each is measured in all volumes."""

    name = "lesions"
    question = "Do the lesions stay?"
    columns: ClassVar[Mapping[str, str]] = {
        "lesion": "its label; for a mask, its number. 6 of 13: how many are seen in HR, else in cubic, the medians of "
        "their ratios, and how many are lost or false",
        "diameter_mm": "of a ball with the volume of the mask",
        "contrast_percent": "its mean against the median of tissue 2 to 5 mm away, in % of that",
        "contrast_ratio": "contrast over that in HR, else in cubic, where it is seen there",
        "cnr": "contrast over the standard deviation of this tissue",
        "volume_ml": "of the voxels that have at least half of its contrast",
        "volume_ratio": "volume over that in HR, else in cubic",
        "lost": "1 if the lesion is not seen: cnr is below 1, or has the other sign; empty if it is not seen in HR, "
        "else in cubic. The scan keeps what cubic keeps",
        "false": "1 if the lesion is seen, and HR, else cubic, shows none there; empty if it does",
    }
    asked_by = ("lesions",)
    by = None

    def __init__(self, person: Person, given: Mapping[str, Any]) -> None:
        self.person = person
        self.lesions: Volume = given["lesions"]
        if person.scan is None and person.hr is None:
            raise ValueError(
                f"judge: --lesions {self.lesions.name}: there is nothing to compare {person.results[0].name} with; "
                "give --scan or --hr."
            )

    def judge(self) -> Judgement:
        person, lesions = self.person, number_lesions(self.lesions)
        volumes = {result.label: result for result in person.results}
        if person.scan is not None:
            volumes = {"scan": person.scan, "cubic": person.cubic} | volumes
        if person.hr is not None:
            volumes["HR"] = person.hr
        reference = "HR" if person.hr is not None else "cubic"
        found: dict[str, dict[int, LesionMeasure]] = {}
        for name, volume in volumes.items():
            labels = lesions.sample_mask(volume, "--lesions").astype(np.int32)
            healthy = ~divide_by_brightness(volume.voxels)["air"]
            found[name] = measure_lesions(volume.voxels, labels, healthy, volume.spacing.tolist())
        numbers, counts = np.unique(lesions.voxels[lesions.voxels > 0].astype(int), return_counts=True)
        balls = 2 * np.cbrt(3000 * counts * lesions.millilitres / (4 * math.pi))
        diameters = dict(zip(numbers.tolist(), balls.tolist(), strict=True))
        nothing = LesionMeasure(math.nan, math.nan, math.nan)
        rows: Rows = []
        for i, diameter in diameters.items():
            expected = found[reference].get(i, nothing)
            of_lesion = {name: _make_row(name, i, diameter, found[name].get(i, nothing), expected) for name in volumes}
            if "scan" in of_lesion and of_lesion["cubic"]["lost"] == 0:  # cubic shows what the scan holds
                of_lesion["scan"]["lost"] = 0
            rows += of_lesion.values()
        for name in volumes:
            own = [row for row in rows if row["result"] == name]
            known = [row for row in own if row["lost"] is not None]
            medians = {}
            for key in ("contrast_ratio", "volume_ratio"):
                values = [row[key] for row in known if not math.isnan(row[key])]
                medians[key] = float(np.median(values)) if values else math.nan
            totals = {key: sum(row[key] for row in own if row[key] is not None) for key in ("lost", "false")}
            rows.append({"result": name, "lesion": f"{len(known)} of {len(own)}", **medians, **totals})
        largest = sorted(diameters, key=lambda i: -diameters[i])[:_DRAWN]
        places = {
            f"{i}: {diameters[i]:.1f} mm": (
                apply_affine(lesions.affine, np.argwhere(lesions.voxels == i).mean(axis=0)),
                diameters[i] + 2 * _MARGIN,
            )
            for i in largest
        }
        if all(math.isnan(row["contrast_percent"]) for row in rows if "contrast_percent" in row):
            raise ValueError(
                f"judge: --lesions {self.lesions.name}: there is no tissue 2 to 5 mm around any lesion; expected a "
                "mask on tissue of this person."
            )
        figure = draw_cutouts({name: (each.voxels, each.affine) for name, each in volumes.items()}, places)
        return Judgement(rows, {f"{person.name}_lesions": figure})


@dataclass(frozen=True)
class LesionMeasure:
    """What is seen of a lesion.

    Attributes:
        contrast: of its mean to the median of the tissue around, in parts of that; NaN where there is none.
        contrast_to_noise: the same in standard deviations of the tissue around.
        millilitres: its volume at half of its greatest contrast; NaN if it is not seen.
    """

    contrast: float
    contrast_to_noise: float
    millilitres: float

    @property
    def is_seen(self) -> bool:
        """Whether the contrast is more than a standard deviation of the tissue around."""
        return bool(abs(self.contrast_to_noise) > 1)


def measure_lesions(
    voxels: np.ndarray, labels: np.ndarray, healthy: np.ndarray, spacing: Sequence[float]
) -> dict[int, LesionMeasure]:
    """Measure the contrast of each lesion to a ring of healthy tissue, 2 to 5 mm away, and its volume.

    Other lesions, and what is within 2 mm of them, do not belong to the ring. The volume is that of the voxels with at
    least half of the lesion's contrast, which are connected to the strongest one, and within 2 mm of the mask. The
    lesion's contrast is the tenth decile of that in the mask, because single voxels are noise.

    Args:
        voxels: ``(X, Y, Z)``, any units.
        labels: whole numbers of lesions on the same grid; 0 elsewhere.
        healthy: mask of what may be healthy tissue; air is not.
        spacing: in mm, (3,).

    Returns:
        By label; only those that have voxels.
    """
    margin = [math.ceil(_RING / step) + 1 for step in spacing]
    measures = {}
    for number, found in enumerate(find_objects(labels), 1):
        if found is not None:
            box = tuple(slice(max(side.start - n, 0), side.stop + n) for side, n in zip(found, margin, strict=True))
            measures[number] = _measure(voxels[box], labels[box] == number, labels[box] > 0, healthy[box], spacing)
    return measures


def _measure(
    voxels: np.ndarray, mask: np.ndarray, all_lesions: np.ndarray, healthy: np.ndarray, spacing: Sequence[float]
) -> LesionMeasure:
    """Measure the lesion in a box."""
    values, others = voxels.astype(np.float64), all_lesions & ~mask
    away = distance_transform_edt(~mask, sampling=spacing)
    ring = (away > _GAP) & (away <= _RING) & healthy
    if others.any():
        ring &= distance_transform_edt(~others, sampling=spacing) > _GAP
    if ring.sum() < _LEAST:
        return LesionMeasure(math.nan, math.nan, math.nan)
    tissue = float(np.median(values[ring]))
    noise = float(np.median(np.abs(values[ring] - tissue))) * SIGMA_PER_MAD
    difference = float(values[mask].mean()) - tissue
    measure = LesionMeasure(
        difference / tissue if tissue else math.nan,
        difference / noise if noise else math.copysign(math.inf, difference) if difference else 0.0,
        math.nan,
    )
    if not measure.is_seen:
        return measure
    deviation = (values - tissue) * (1 if difference >= 0 else -1)
    top = float(np.quantile(deviation[mask], 0.9))
    # What another lesion reaches is its own.
    regions, _ = label((away <= _GAP) & ~others & (deviation >= top / 2), np.ones((3, 3, 3)))
    strongest = np.unravel_index(np.argmax(np.where(mask, deviation, -np.inf)), mask.shape)
    count = int((regions == regions[strongest]).sum()) if regions[strongest] else 0
    return replace(measure, millilitres=count * math.prod(spacing) / 1000)


def number_lesions(mask: Volume) -> Volume:
    """A label map of lesions: the given one, or the connected parts of a mask with one value or probabilities."""
    values = np.unique(mask.voxels[mask.voxels > 0])
    if len(values) > 1 and (values == np.rint(values)).all():
        return mask
    parts, _ = label(mask.voxels >= (values.max() / 2 if len(values) else np.inf), np.ones((3, 3, 3)))
    return replace(mask, voxels=parts.astype(np.float32))


def _make_row(
    name: str, number: int, diameter: float, measure: LesionMeasure, expected: LesionMeasure
) -> dict[str, Any]:
    """The row of a lesion in a volume, with what is expected of it by the reference."""
    is_known = expected.is_seen
    ratio = measure.contrast / expected.contrast if is_known else math.nan
    return {
        "result": name,
        "lesion": int(number),
        "diameter_mm": diameter,
        "contrast_percent": 100 * measure.contrast,
        "contrast_ratio": ratio,
        "cnr": measure.contrast_to_noise,
        "volume_ml": measure.millilitres,
        "volume_ratio": measure.millilitres / expected.millilitres if is_known else math.nan,
        "lost": int(not (measure.is_seen and ratio > 0)) if is_known else None,
        "false": None if is_known or math.isnan(expected.contrast) else int(measure.is_seen),
    }
