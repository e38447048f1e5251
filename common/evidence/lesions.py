"""Do given lesions stay: their contrast and volume in scan, interpolation and results."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import label

from ..metrics.brightness_classes import divide_by_brightness
from ..metrics.lesion import LesionMeasure, measure_lesions
from ..reports.lesions import draw_cutouts
from .judgement import Judgement, Question
from .person import Person
from .volume import Volume

_DRAWN = 8  # lesions in the picture, the largest
_MARGIN = 12.0  # mm around a lesion in the picture


def judge_lesions(person: Person) -> Judgement:
    """Measure each lesion in all volumes of a person."""
    assert person.lesions is not None
    lesions = number_lesions(person.lesions)
    volumes = {result.label: result for result in person.results}
    if person.scan is not None:
        volumes = {"scan": person.scan, "cubic": person.cubic} | volumes
    if person.hr is not None:
        volumes["HR"] = person.hr
    reference = "HR" if person.hr is not None else "cubic" if person.scan is not None else person.results[0].label
    found: dict[str, dict[int, LesionMeasure]] = {}
    for name, volume in volumes.items():
        labels = person.sample_mask(lesions, volume, "--lesions").astype(np.int32)
        healthy = ~divide_by_brightness(volume.voxels)["air"]
        found[name] = measure_lesions(volume.voxels, labels, healthy, volume.spacing.tolist())
    numbers, counts = np.unique(lesions.voxels[lesions.voxels > 0].astype(int), return_counts=True)
    balls = 2 * np.cbrt(3000 * counts * lesions.millilitres / (4 * math.pi))
    diameters = dict(zip(numbers.tolist(), balls.tolist(), strict=True))
    nothing = LesionMeasure(math.nan, math.nan, math.nan)
    rows = []
    for i, diameter in diameters.items():
        expected = found[reference].get(i, nothing)
        for name in volumes:
            rows.append(_make_row(name, i, diameter, found[name].get(i, nothing), expected))
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
            f"judge: --lesions {person.lesions.name}: there is no tissue 2 to 5 mm around any lesion; expected a mask "
            "on tissue of this person."
        )
    figure = draw_cutouts({name: (each.voxels, each.affine) for name, each in volumes.items()}, places)
    return Judgement(rows, {f"{person.name}_lesions": figure})


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


LESIONS = Question(
    "lesions",
    "Do the lesions stay?",
    {
        "lesion": "its label; for a mask, its number. 6 of 13: how many are seen in HR, else in cubic, the medians of "
        "their ratios, and how many are lost or false",
        "diameter_mm": "of a ball with the volume of the mask",
        "contrast_percent": "its mean against the median of tissue 2 to 5 mm away, in % of that",
        "contrast_ratio": "contrast over that in HR, else in cubic, where it is seen there",
        "cnr": "contrast over the standard deviation of this tissue",
        "volume_ml": "of the voxels that have at least half of its contrast",
        "volume_ratio": "volume over that in HR, else in cubic",
        "lost": "1 if the lesion is not seen: cnr is below 1, or has the other sign; empty if it is not seen in HR, "
        "else in cubic",
        "false": "1 if the lesion is seen, and HR, else cubic, shows none there; empty if it does",
    },
    lambda person: person.lesions is not None,
    judge_lesions,
    by=None,
)
