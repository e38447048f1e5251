"""Do given lesions stay: their contrast and volume in scan, interpolation and results."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import label

from ..metrics import LesionMeasure, measure_lesion
from ..reports import draw_cutouts
from ..runtime.progress import begin_part
from .judgement import Judgement, Part
from .person import Person
from .tissues import divide_by_brightness
from .volume import Volume

_DRAWN = 8  # lesions in the picture, the largest
_MARGIN = 12.0  # mm around a lesion in the picture


def judge_lesions(person: Person) -> Judgement:
    """Measure each lesion in all volumes of a person.

    Raises:
        ValueError: when no lesion lies in the volumes.
    """
    assert person.lesions is not None
    lesions = number_lesions(person.lesions)
    volumes = {result.name: result for result in person.results}
    if person.scan is not None:
        volumes = {"scan": person.scan, "cubic": person.cubic} | volumes
    if person.hr is not None:
        volumes["HR"] = person.hr
    reference = "HR" if person.hr is not None else "scan" if person.scan is not None else person.results[0].name
    found: dict[str, dict[int, LesionMeasure]] = {}
    for n, (name, volume) in enumerate(volumes.items()):
        with begin_part(n, len(volumes)):
            labels = person.sample_mask(lesions, volume, "--lesions").astype(np.int32)
            healthy = ~divide_by_brightness(volume.voxels)["air"]
            spacing = volume.spacing.tolist()
            found[name] = {
                i: measure_lesion(volume.voxels, labels, i, healthy, spacing) for i in np.unique(labels[labels > 0])
            }
    sizes = {i: np.sum(lesions.voxels == i) for i in sorted(set().union(*found.values()))}
    diameters = {i: 2 * (3000 * size * lesions.millilitres / (4 * math.pi)) ** (1 / 3) for i, size in sizes.items()}
    nothing = LesionMeasure(math.nan, math.nan, math.nan)
    rows = []
    for i, diameter in diameters.items():
        expected = found[reference].get(i, nothing)
        for name in volumes:
            rows.append(_make_row(name, i, diameter, found[name].get(i, nothing), expected))
    for name in volumes:
        own = [row for row in rows if row["result"] == name]
        keys = ("diameter_mm", "contrast_percent", "contrast_ratio", "cnr", "volume_ml", "volume_ratio")
        known = {key: [row[key] for row in own if not math.isnan(row[key])] for key in keys}
        medians = {key: float(np.median(values)) if values else math.nan for key, values in known.items()}
        lost = sum(row["lost"] or 0 for row in own)
        rows.append({"result": name, "lesion": f"all {len(own)}", **medians, "lost": lost})
    largest = sorted(diameters, key=lambda i: -diameters[i])[:_DRAWN]
    places = {
        f"{i}: {diameters[i]:.1f} mm": (
            apply_affine(lesions.affine, np.argwhere(lesions.voxels == i).mean(axis=0)),
            diameters[i] + 2 * _MARGIN,
        )
        for i in largest
    }
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
    ratio = measure.contrast / expected.contrast if expected.contrast else math.nan
    is_known = expected.is_seen
    return {
        "result": name,
        "lesion": int(number),
        "diameter_mm": diameter,
        "contrast_percent": 100 * measure.contrast,
        "contrast_ratio": ratio,
        "cnr": measure.contrast_to_noise,
        "volume_ml": measure.millilitres,
        "volume_ratio": measure.millilitres / expected.millilitres if expected.millilitres else math.nan,
        "lost": int(not measure.is_seen or ratio <= 0) if is_known else None,
    }


LESIONS = Part(
    "lesions",
    "Do the lesions stay?",
    {
        "lesion": "its label; for a mask, its number. all: the number of lesions, medians, and the sum of lost",
        "diameter_mm": "of a ball with the volume of the mask",
        "contrast_percent": "its mean against the median of tissue 2 to 5 mm away, in % of that",
        "contrast_ratio": "contrast over that in HR, else in the scan",
        "cnr": "contrast over the standard deviation of this tissue",
        "volume_ml": "of the voxels that have at least half of its contrast",
        "volume_ratio": "volume over that in HR, else in the scan",
        "lost": "1 if the contrast is below this standard deviation, or of the other sign, but not so in HR, else in "
        "the scan; empty if the lesion is not seen there",
    },
    lambda person: person.lesions is not None,
    judge_lesions,
)
