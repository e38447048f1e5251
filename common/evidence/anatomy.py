"""Do the brain and its tissues, or a user's own regions, keep their volume and their place?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..metrics.anatomy import measure_agreement
from ..reports.bland_altman import draw_bland_altman
from ..reports.segmentation import draw_segmentations
from .judgement import Judgement, Part
from .person import Person
from .segmentation import Segmentation
from .volume import Volume

_MOST = 6  # panels of a picture


def _judge(person: Person) -> Judgement:
    segmenter = person.segmenter
    assert segmenter is not None
    cubic = person.cubic if person.scan else None
    given = {name: each for name, each in {"HR": person.hr, "scan": person.scan, "cubic": cubic}.items() if each}
    names = [result.label for result in person.results]
    given |= zip(names, person.results, strict=True)
    segmented: dict[str, tuple[Volume, Segmentation]] = {}
    for name, volume in given.items():
        if found := segmenter.segment(volume):
            segmented[name] = volume, found
    if segmented.keys().isdisjoint(names):
        raise ValueError(f"judge: --labels {person.labels}: there is no file of labels for {person.results[0].name}.")
    against = next((name for name in ("HR", "scan") if name in segmented), None)
    rows: list[dict[str, Any]] = []
    for region in dict.fromkeys(region for _, found in segmented.values() for region in found.regions):
        masks = {name: found.get_mask(region) for name, (_, found) in segmented.items()}
        ml = {name: found.measure_size(region) * volume.millilitres for name, (volume, found) in segmented.items()}
        for name, (volume, _) in segmented.items():
            kind = "result" if name in names else name
            row: dict[str, Any] = {"result": name, "kind": kind, "region": region, "ml": ml[name]}
            if against is not None and name != against:
                bias = ml[name] - ml[against]
                row |= {"against": against, "bias_ml": bias}
                row["bias_percent"] = 100 * bias / ml[against] if ml[against] else float("nan")
                if against == "HR" and volume.is_on_grid_of(segmented["HR"][0]):
                    row["dice"], row["hd95_mm"] = measure_agreement(masks[name], masks["HR"], volume.spacing.tolist())
            rows.append(row)
    drawn = {name: (volume.voxels, found.labels, volume.affine) for name, (volume, found) in segmented.items()}
    return Judgement(rows, {f"anatomy_{person.name}": draw_segmentations(drawn)})


def _draw(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    compared = [row for row in rows if "bias_ml" in row]
    for row in compared:
        pairs[row["region"]][row["kind"]].append((row["ml"], row["ml"] - row["bias_ml"]))
    if not pairs:
        return {}
    sizes = {region: np.mean([pair for found in kinds.values() for pair in found]) for region, kinds in pairs.items()}
    largest = sorted(pairs, key=lambda region: -sizes[region])[:_MOST]
    against = " or ".join(dict.fromkeys(row["against"] for row in compared))
    return {"anatomy": draw_bland_altman({region: pairs[region] for region in largest}, "ml", against)}


ANATOMY = Part(
    name="anatomy",
    question="Do the brain and its tissues keep their volume and their place?",
    columns={
        "region": "the brain, with the CSF around it, or a tissue; with --labels the number of a label",
        "ml": "volume in ml, by the volume's own voxels; those at a border of tissues count in part",
        "against": "what it is compared with: HR, or else the scan",
        "bias_ml": "volume less that of HR or of the scan, in ml: below 0, it shrank",
        "bias_percent": "the same in per cent; half a voxel of shift changed two brains by 0.3 %, a tissue by 8.5 %",
        "dice": "Dice's coefficient with HR, 1 for the same voxels",
        "hd95_mm": "95th percentile of the Hausdorff distance to HR, in mm",
    },
    is_asked=lambda person: person.segmenter is not None,
    judge=_judge,
    by=("region",),
    draw=_draw,
)
