"""Do the brain and its tissues, or a user's own regions, keep their volume and their place?"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.metrics import compute_dice, compute_hausdorff_distance

from ...reports.files import escape_text
from .assessment import Assessment, Judgement
from .pictures import draw_segmentations
from .segmentation import Segmentation, explain_no_labels

_MOST = 6  # panels of a picture
_PERCENTILE = 95  # of the Hausdorff distance
_LIMITS = 1.96  # standard deviations on either side of the bias, between which 95 % of the differences lie
_FEWEST = 3  # persons with a standard deviation


class Anatomy(Assessment):
    """Segmentations of the volumes: they are made, or the user's own."""

    name = "anatomy"
    question = "Do the brain and its tissues keep their volume and their place?"
    columns: ClassVar[Mapping[str, str]] = {
        "region": "the brain, with the CSF around it, or a tissue; with --labels the number of a label",
        "ml": "volume in ml; voxels at a border of tissues count in part. Without --labels, voxels below 0.9 mm are "
        "segmented at 1 mm, for all columns",
        "against": "what it is compared with: HR, or else the scan",
        "bias_ml": "volume less that of HR or of the scan, in ml: below 0, it shrank",
        "bias_percent": "the same in per cent; half a voxel of shift changed two brains by 0.3 %, a tissue by 8.5 %",
        "dice": "Dice's coefficient with HR, 1 for the same voxels",
        "hd95_mm": "95th percentile of the Hausdorff distance to HR, in mm",
    }
    asked_by = ("anatomy", "labels")
    by = ("region",)

    def judge(self) -> Judgement:
        person, segmenter = self.person, self.person.segmenter
        assert segmenter is not None
        cubic = person.cubic if person.scan else None
        given = {name: each for name, each in {"HR": person.hr, "scan": person.scan, "cubic": cubic}.items() if each}
        names = [result.label for result in person.results]
        given |= zip(names, person.results, strict=True)
        tried = {name: segmenter.segment(volume) for name, volume in given.items()}
        segmented: dict[str, Segmentation] = {name: found for name, found in tried.items() if found}
        if segmented.keys().isdisjoint(names):
            raise ValueError(explain_no_labels(str(person.labels), person.results[0]))
        against = next((name for name in ("HR", "scan") if name in segmented), None)
        rows: list[dict[str, Any]] = []
        for region in dict.fromkeys(region for found in segmented.values() for region in found.regions):
            masks = {name: found.get_mask(region) for name, found in segmented.items()}
            ml = {name: found.measure(region) for name, found in segmented.items()}
            for name, found in segmented.items():
                kind = "result" if name in names else name
                row: dict[str, Any] = {"result": name, "kind": kind, "region": region, "ml": ml[name]}
                if against is not None and name != against:
                    bias = ml[name] - ml[against]
                    row |= {"against": against, "bias_ml": bias}
                    row["bias_percent"] = 100 * bias / ml[against] if ml[against] else float("nan")
                    if against == "HR" and found.volume.is_on_grid_of(segmented["HR"].volume):
                        row["dice"], row["hd95_mm"] = measure_agreement(
                            masks[name], masks["HR"], found.volume.spacing.tolist()
                        )
                rows.append(row)
        drawn = {name: (each.volume.voxels, each.labels, each.volume.affine) for name, each in segmented.items()}
        return Judgement(rows, {f"anatomy_{person.name}": draw_segmentations(drawn)})

    @staticmethod
    def draw(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        pairs: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        compared = [row for row in rows if "bias_ml" in row]
        for row in compared:
            pairs[row["region"]][row["kind"]].append((row["ml"], row["ml"] - row["bias_ml"]))
        if not pairs:
            return {}
        sizes = {
            region: np.mean([pair for found in kinds.values() for pair in found]) for region, kinds in pairs.items()
        }
        largest = sorted(pairs, key=lambda region: -sizes[region])[:_MOST]
        against = " or ".join(dict.fromkeys(row["against"] for row in compared))
        return {"anatomy": draw_bland_altman({region: pairs[region] for region in largest}, "ml", against)}


def measure_agreement(mask: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> tuple[float, float]:
    """Dice's coefficient and the 95th percentile of the Hausdorff distance of two masks, by MONAI.

    Args:
        mask, truth: ``(X, Y, Z)``, on one grid.
        spacing: of the voxels in mm.

    Returns:
        Dice, from 0 to 1, and the distance of the borders in mm. If one mask is empty
        it is NaN, and so is Dice if both are.
    """
    if not (mask.any() and truth.any()):
        return 0.0 if mask.any() or truth.any() else float("nan"), float("nan")
    both = mask | truth
    around = [np.flatnonzero(both.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(at[0], at[-1] + 1) for at in around)
    found, true = (torch.from_numpy(each[box])[None, None] for each in (mask, truth))
    dice = compute_dice(found, true)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)  # MONAI 1.6 warns of itself
        distance = compute_hausdorff_distance(found, true, True, percentile=_PERCENTILE, spacing=list(spacing))
    return float(dice), float(distance)


def draw_bland_altman(
    pairs: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], unit: str, against: str
) -> Figure:
    """Draw the difference of two measurements over their mean, with the bias and the limits of agreement.

    Args:
        pairs: for each quantity, a panel, and for each way to measure it, a colour: value and reference by person.
        unit: of the values.
        against: what the reference is.

    Source:
        Bland and Altman, Statistical methods for assessing agreement between two methods of clinical measurement,
        Lancet 327, 1986.
    """
    figure = Figure(figsize=(4.5 * len(pairs), 4), layout="constrained")
    for axes, (quantity, by_method) in zip(
        figure.subplots(1, len(pairs), squeeze=False)[0], pairs.items(), strict=True
    ):
        axes.axhline(0, color="0.7", linewidth=0.8)
        for number, (method, values) in enumerate(by_method.items()):
            measured, reference = np.asarray(values, dtype=float).T
            difference, colour = measured - reference, f"C{number}"
            label = f"{escape_text(method)}: {difference.mean():+.3g}"
            axes.axhline(difference.mean(), color=colour, linewidth=1)
            if len(values) >= _FEWEST:
                limit = _LIMITS * difference.std(ddof=1)
                label += f" ± {limit:.2g}"
                for sign in (-1, 1):
                    axes.axhline(difference.mean() + sign * limit, color=colour, linewidth=1, linestyle="--")
            axes.scatter((measured + reference) / 2, difference, s=18, color=colour, label=label)
        axes.set_title(escape_text(quantity))
        axes.set_xlabel(f"mean of both ({unit})")
        axes.legend(title=f"bias ± {_LIMITS} SD, {unit}", fontsize="small", title_fontsize="small")
    figure.axes[0].set_ylabel(f"difference from {escape_text(against)} ({unit})")
    return figure
