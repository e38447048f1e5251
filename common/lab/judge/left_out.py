"""A stack that was left out: each result is seen through its slices."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from nibabel.orientations import io_orientation

from ...degradations.fitted_profile import BELIEVED_WIDTHS
from ...geometry.stack import Stack
from ...io.files import parse_slice_thickness
from ...io.read import digest_voxels
from ...program.volume import Volume
from ...reports.planes import to_ras
from ...runtime.errors import Notice
from ...stacks.left_out import LeftOutStack, Prediction, estimate_interval, find_data
from .assessment import Assessment, Judgement, Rows
from .person import Person
from .pictures import draw_differences

_FEWEST = 100  # voxels that a comparison needs
_WHERE = (1 / 3, 2 / 3)  # of the slices with much to compare, those that are drawn


class LeftOut(Assessment):
    """A stack of the exam that no result knows: each result is seen through its slices and compared."""

    name = "left_out"
    question = "How well does each result predict a stack that no result knows?"
    columns: ClassVar[Mapping[str, str]] = {
        "correlation": "of the stack with what its slices see of the result, where all results have data",
        "psnr": "dB; the peak is the 99.9th percentile of the stack",
        "slice_correlation": "mean of the correlations within each slice",
        "behind": "mean over slices by which slice_correlation is below that of the best result",
        "behind_low": "lower end of its 95 % interval over the slices of this one person, not over people",
        "behind_high": "upper end of its 95 % interval",
        "verdict": "worse: the interval is above 0; as good: the slices do not tell it from the best",
        "slices": "slices with at least 100 voxels that all results cover",
        "share": "of the stack, or of the region, that was compared",
        "shift": "mm that the stack's middle moved onto the result; results on one grid move alike, as the best does",
        "turn": "degrees that it turned",
    }
    asked_by = ("left_out",)

    def __init__(self, person: Person, given: Mapping[str, Any]) -> None:
        self.person = person
        self.left_out: Volume = given["left_out"]
        self.region: Volume | None = given.get("region")
        for result in person.results if self.left_out.is_file else ():
            known = [each.get("Sha256") for each in result.inputs]
            if any(known) and digest_voxels(self.left_out.name) in known:
                raise ValueError(
                    f"judge: {result.name} was made of --left_out {self.left_out.name}, so it foretells nothing; "
                    "super-resolve the other stacks without it."
                )

    def judge(self) -> Judgement:
        cut = cut_to_data(self.left_out)
        region = None
        if self.region is not None:
            region = torch.from_numpy(self.region.sample_mask(cut, "--region") > 0)
        stack = LeftOutStack(make_stack(cut, read_thickness(cut)), region)
        volumes = list(self.person.methods.values())
        shown = [make_stack(cut_to_data(result)) for result in volumes]
        seen = [stack.see(each) for each in shown]
        for result, view in zip(volumes, seen, strict=True):
            if (reason := view.registration.misfit) is not None:
                raise ValueError(
                    f"judge: --left_out {self.left_out.name} does not fit {result.name}: {reason}. Name a stack of one "
                    "exam and contrast with it."
                )
        for first in {next(i for i, one in enumerate(volumes) if one.is_on_grid_of(result)) for result in volumes}:
            alike = [i for i, result in enumerate(volumes) if result.is_on_grid_of(volumes[first])]
            if len(alike) == 1:
                continue
            views = stack.see_alike([shown[i] for i in alike], [seen[i] for i in alike])
            for i, view in zip(alike, views, strict=True):
                seen[i] = view
        predictions, common = stack.compare(seen)
        if (count := int(common.sum())) < _FEWEST:
            raise ValueError(
                f"judge: --left_out {self.left_out.name}: {count} of its voxels lie in all results, expected at least "
                f"{_FEWEST}; name results that cover it, or another --region."
            )
        means = [None if np.isnan(each.slices).all() else float(np.nanmean(each.slices)) for each in predictions]
        ranks = [each.correlation if mean is None else mean for each, mean in zip(predictions, means, strict=True)]
        best = predictions[int(np.argmax(ranks))]
        rows: Rows = []
        for result, view, each, mean in zip(volumes, seen, predictions, means, strict=True):
            behind, low, high = estimate_interval(best.slices - each.slices)
            verdict = "best" if each is best else "worse" if low > 0 else "as good"
            spread = {} if each is best else {"behind": behind, "behind_low": low, "behind_high": high}
            rows.append(
                {
                    "result": result.label,
                    "correlation": each.correlation,
                    "psnr": each.psnr,
                    "slice_correlation": mean,
                    **spread,
                    "verdict": verdict if len(predictions) > 1 else None,
                    "slices": int((~np.isnan(each.slices)).sum()),
                    "share": count / int(stack.counted.sum()),
                    "shift": view.shift,
                    "turn": view.turn,
                }
            )
        scores = [f"correlation {each.correlation:.3f}" for each in predictions]
        titles = [f"{result.label}, {score}" for result, score in zip(volumes, scores, strict=True)]
        figure = _draw(self.left_out.label, stack.stack, titles, predictions, common)
        return Judgement(rows, {f"{self.person.name}_left_out": figure})


def cut_to_data(volume: Volume) -> Volume:
    """A volume without its borders of exactly 0, slices along the last axis: that with the largest spacing."""
    across = int(np.argmax(volume.spacing))
    order = [axis for axis in range(3) if axis != across] + [across]
    voxels, affine = volume.voxels.transpose(order), volume.affine[:, [*order, 3]].copy()
    there = np.argwhere(find_data(voxels))
    first, last = there.min(axis=0), there.max(axis=0) + 1
    affine[:3, 3] += affine[:3, :3] @ first
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return replace(volume, voxels=np.ascontiguousarray(voxels[box]), affine=affine)


def make_stack(volume: Volume, thickness: float = 1.0) -> Stack:
    """A volume as a stack, measured where it has data; ``thickness`` is in distances of its slices."""
    there = torch.from_numpy(find_data(volume.voxels))
    return Stack(torch.from_numpy(volume.voxels), volume.affine, thickness, volume.name, there)


def read_thickness(volume: Volume) -> float:
    """The thickness of slices along the last axis in distances of their centres: by SliceThickness, else 1."""
    mm = parse_slice_thickness(volume.metadata.get("SliceThickness"))
    thickness = 1.0 if mm is None else mm / float(volume.spacing[2])
    if BELIEVED_WIDTHS[0] <= thickness <= BELIEVED_WIDTHS[1]:
        return thickness
    warnings.warn(
        f"{volume.name}: SliceThickness is {mm:g} mm, and slices lie {volume.spacing[2]:.3g} mm apart; it is ignored.",
        Notice,
        stacklevel=2,
    )
    return 1.0


def _draw(name: str, stack: Stack, titles: list[str], predictions: list[Prediction], common: torch.Tensor) -> Any:
    """The stack beside each prediction, and the differences, in two slices."""

    def turn(voxels: torch.Tensor) -> np.ndarray:
        return to_ras(voxels.cpu().numpy().astype(np.float32), stack.affine)[0]

    truth, there = turn(stack.voxels), turn(common) > 0
    orientation = io_orientation(stack.affine)[:, 0].astype(int)
    normal, spacing = int(orientation[2]), stack.spacing[np.argsort(orientation)]
    counts = there.sum(axis=tuple(axis for axis in range(3) if axis != normal))
    full = np.flatnonzero(counts >= counts.max() / 2)
    chosen = [int(full[int(share * (len(full) - 1))]) for share in _WHERE]
    box = [
        slice(int(a), int(b) + 1) for a, b in zip(*(f(np.argwhere(there), 0) for f in (np.min, np.max)), strict=True)
    ]

    def cut(volume: np.ndarray, index: int) -> np.ndarray:
        place: list[Any] = list(box)
        place[normal] = index
        return volume[tuple(place)]

    rows = {}
    for title, each in zip(titles, predictions, strict=True):
        shown = turn(each.voxels)
        rows[title] = [
            panel
            for index in chosen
            for panel in (
                (cut(truth, index), False),
                (cut(shown, index), False),
                (cut((shown - truth) * there, index), True),
            )
        ]
    columns = [text for index in chosen for text in (f"left out, slice {index}", "predicted", "predicted - left out")]
    return draw_differences(name, columns, rows, spacing.tolist(), normal)
