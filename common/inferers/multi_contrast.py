"""Super-resolve all contrasts of one exam on one grid, each with the edges of the others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import ornt_transform
from torch import nn
from tqdm import tqdm

from ..degradations.profiles import GaussianProfile
from ..geometry.registration.contrasts import find_misplacement, register_contrasts
from ..geometry.resampling import make_cubic_grid
from ..geometry.stack import Stack
from ..runtime.errors import Notice
from ..runtime.progress import begin_part, format_estimate, get_elapsed, join_items, measure_time, move_bar
from ..stacks.fitting import FittedStack, reconstruct
from ..stacks.guide import GuidingEdges, SlopeForm
from ..transforms.scan.extremes import select_unmeasured
from ..transforms.scan.volume import ORIENTATION, attach_meta, reorient_volume
from .multi_stack import StacksInferer, check_copies, convert_range, find_measured, get_affine, get_file

# Likely slope that another contrast does not show. With thick slices in three planes, 0.1 gained 0.12 to 0.18 dB; with
# all slices in one plane it lost at most 0.01 dB, and 0.05 lost 0.06 dB.
_SLOPE = 0.1
_STEPS = 2.6  # times as long as with one, the five iterations of data consistency take
_SHORT = 0.01  # seconds of what is done at once
_VOXELS, _SIDE = 2_000_000, 32  # of the volume, and along the sides of a scan, on which speed is measured


@dataclass
class _Result:
    """What became of a contrast."""

    reference: MetaTensor  # the scan whose field of view the grid has
    affine: np.ndarray  # of the grid
    brightness: Any = None  # the stack of the contrast whose brightness the volume has
    report: dict[str, Any] = field(default_factory=dict)
    warnings: list = field(default_factory=list)
    error: Exception | None = None
    start: Any = None  # the arguments of reconstruct
    alone: Any = None  # the volume without the other contrasts
    volume: Any = None
    is_done: bool = False

    @contextmanager
    def catch_problems(self) -> Iterator[None]:
        """Keep the warnings of the block, and an error that no other contrast shares."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            except ValueError as error:
                self.error = error
        self.warnings += caught


class _Seconds(NamedTuple):
    """How long the parts of a contrast take."""

    start: Sequence[float]  # of the fit, and of making each stack thin with the whole training
    agree: float
    joint: float
    early: float  # less, if the training stops early


class ExamInferer(StacksInferer):
    """As :class:`StacksInferer`; the contrasts of an exam are made on one grid, and share edges but no grey values.

    Each contrast is first made by itself and agrees with its own stacks. Then each is made again with the directions of
    the others' edges, see :class:`~common.stacks.GuidingEdges`. All have the axes and the field of view of the contrast
    whose field of view is largest. A contrast that does not lie on that one is registered to it, with a warning.

    All contrasts are made by themselves when the first is asked for, and each with the edges of the others when it is
    asked for itself. Before, a short measurement of this machine says how long the exam will take.

    Attributes:
        at_once: whether all contrasts are made again at the same time.
    """

    at_once = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._exam: tuple[str, ...] = ()
        self._asked = 0  # contrasts of the exam that were asked for
        self._results: dict[str, _Result] = {}
        self._costs: list[float] = []  # seconds of the parts of the work

    def __call__(
        self,
        inputs: MetaTensor | Any,
        network: nn.Module | Any,
        others: Sequence[MetaTensor | Any] = (),
        guide: MetaTensor | Any = None,
        contrasts: Sequence[Sequence[MetaTensor | Any]] = (),
    ) -> MetaTensor:
        """Make one volume from the stacks of a contrast.

        Args:
            inputs, network, others, guide: as for :class:`StacksInferer`.
            contrasts: the stacks of each other contrast of the exam, as ``inputs``.

        Returns:
            Volume ``(1, 1, X', Y', Z')`` of the contrast of ``inputs``, with its affine.
        """
        if not contrasts:
            return super().__call__(inputs, network, others, guide)
        exam = sorted([[inputs, *others], *contrasts], key=lambda stacks: get_file(stacks[0]))
        key, name = tuple(get_file(stack) for stacks in exam for stack in stacks), get_file(inputs)
        is_new = self._exam != key or self._results[name].is_done
        if is_new:
            self._exam, self._asked = key, 0
        with join_items(self._asked, len(exam)):
            if is_new:
                self._results = self._reconstruct_alone(exam, network)
            self._asked += 1
            result = self._results[name]
            result.is_done = True
            if result.error is None and result.volume is None:
                self._share_edges(name)
        if self._asked == len(exam):
            self._exam, self._results = (), {}
        self.report, reference = result.report, result.reference
        for warning in result.warnings:
            warnings.warn(warning.message, warning.category, stacklevel=2)
        if result.error is not None:
            raise result.error
        self.judge_stacks(result.volume, *result.start[1:3])
        volume, result.volume = convert_range(result.volume, result.brightness, inputs), None
        values, place = _copy_axes(volume[None], result.affine, reference.meta, inputs.meta)
        measured = [find_measured(each.stack) for each in result.start[2][1:]]
        if get_file(reference) != get_file(inputs):  # on another scan's axes its fill values have no place
            measured = [(np.ones(inputs.shape[2:], bool), get_affine(inputs))]
        left = select_unmeasured(inputs.meta, measured)
        return MetaTensor(values[None], affine=place[None], meta={name: [value] for name, value in left.items()})

    def estimate_seconds(
        self,
        inputs: MetaTensor | Any,
        network: nn.Module | Any,
        others: Sequence[MetaTensor | Any] = (),
        guide: MetaTensor | Any = None,
        contrasts: Sequence[Sequence[MetaTensor | Any]] = (),
    ) -> tuple[float, float] | None:
        """As :func:`common.inferers.duration.estimate_seconds`, of one exam with all its contrasts.

        Two stacks of each contrast are registered for it, and all count.
        """
        if self.is_self_trained:
            return None
        exam = [[inputs, *others], *contrasts]
        every = [stack for stacks in exam for stack in stacks]
        voxel = self.spacing or min(float(voxel_sizes(get_affine(stack)).min()) for stack in every)
        size, grid = make_cubic_grid(inputs.shape[2:], get_affine(inputs), voxel)
        guides = len(contrasts) or int(guide is not None)
        costs, placing = [], 0.0
        for images in exam:
            stacks = [*map(self._read_stack, images)]
            if (count := len(stacks)) > 1:
                self.register_pair(stacks[0], stacks[1], self._read_region(stacks[0]))
                placing += self.pair_seconds * (1 if count == 2 else count * (count + 1) / 2 - 1)
            costs.append(self._measure_costs(stacks, grid, size, network, guides))
        least, most = _add_costs(costs)
        return least + placing, most + placing

    def measure_parts(
        self, stacks: Sequence[Stack], affine: np.ndarray, size: Sequence[int], network: nn.Module, guides: int
    ) -> tuple[float, Sequence[float], float]:
        """As :class:`StacksInferer`; it is printed how long they take."""
        if self.is_self_trained:
            return super().measure_parts(stacks, affine, size, network, guides)
        cost = self._measure_costs(stacks, affine, size, network, guides)
        _print_estimate([cost])
        return get_elapsed(), cost.start, cost.agree + cost.joint

    def _reconstruct_alone(self, exam: Sequence[Sequence[MetaTensor]], network: nn.Module) -> dict[str, _Result]:
        """Make each contrast by itself. Returns the results by the file of the first stack."""
        every = [stack for stacks in exam for stack in stacks]
        reference = max((stacks[0] for stacks in exam), key=_measure_field_of_view)
        voxel = self.spacing or min(float(voxel_sizes(get_affine(stack)).min()) for stack in every)
        size, affine = make_cubic_grid(reference.shape[2:], get_affine(reference), voxel)
        check_copies(size, voxel, len(every), len(exam) - 1, reference.device)
        results = {get_file(stacks[0]): _Result(reference, affine) for stacks in exam}
        placed: dict[str, tuple] = {}
        costs: list[_Seconds] = []
        for stacks, (name, result) in zip(exam, results.items(), strict=True):
            self.report = result.report
            with begin_part(0, (0, 1)), result.catch_problems():  # no part of what is estimated
                images = {get_file(stack): stack for stack in stacks}
                found = self.place_stacks(images)
                result.brightness = images[found[0].name]
                move = np.eye(4) if self.is_aligned else _align_contrast(reference, result.brightness)
                grid = np.linalg.inv(move) @ affine  # the stacks stay, and the grid moves to them
                costs.append(self._measure_costs(found, grid, size, network, len(exam) - 1))
                placed[name] = found, images, grid
        if costs and not self.is_self_trained:
            _print_estimate(costs)
        joint = [cost.joint for cost in costs]
        joint = [sum(joint), *[0.0] * len(joint[1:])] if self.at_once else joint
        self._costs = [get_elapsed(), *(each for cost in costs for each in (sum(cost.start), cost.agree)), *joint]
        move_bar(self._costs)
        for i, (name, (found, images, grid)) in enumerate(placed.items()):
            result = results[name]
            self.report = result.report
            with result.catch_problems():
                with begin_part(2 * i + 1, self._costs):
                    volume, fitted, variances = self.make_start(found, images, size, grid, network, costs[i].start)
                result.start = volume, grid, fitted, variances
                self.report_places(images, fitted, affine @ np.linalg.inv(grid))
                with begin_part(2 * i + 2, self._costs):
                    result.alone = reconstruct(volume, grid, fitted, variances)
        made = [name for name, result in results.items() if result.error is None]
        for name in made:
            results[name].report[name]["Edges"] = [other for other in made if other != name]
        return results

    def _share_edges(self, name: str) -> None:
        """Make a contrast again, with the edges of the others."""
        made = {each: result for each, result in self._results.items() if result.error is None}
        alone, starts = ({each: getattr(result, of) for each, result in made.items()} for of in ("alone", "start"))
        before = sum(result.is_done for result in made.values()) - 1
        with begin_part(2 * len(self._costs) // 3 + 1 + before, self._costs):
            for each, volume in self.reconstruct_jointly(alone, starts, name).items():
                made[each].volume = volume

    def reconstruct_jointly(
        self, volumes: Mapping[str, torch.Tensor], starts: Mapping[str, tuple], name: str
    ) -> dict[str, torch.Tensor]:
        """Make a contrast of an exam again, with the edges of the others.

        Args:
            volumes: of each contrast, agreeing with its own stacks; all on one grid.
            starts: the arguments of :func:`~common.stacks.fitting.reconstruct` for each.
            name: of the contrast.

        Returns:
            The volumes that are done, at least that of the contrast.
        """
        guides = [volume for other, volume in volumes.items() if other != name]
        start, affine, fitted, variances = starts[name]
        return {name: reconstruct(start, affine, fitted, variances, guides, slope=_SLOPE, rounds=1)}

    def _measure_costs(
        self, stacks: Sequence[Stack], grid: np.ndarray, size: Sequence[int], network: nn.Module, guides: int
    ) -> _Seconds:
        """Measure how long a contrast will take on this machine; other arguments are as for :meth:`make_start`."""
        volume = torch.full(tuple(size), 0.5, device=stacks[0].voxels.device)
        ones = [torch.ones(stack.voxels.shape[2], device=volume.device) for stack in stacks]
        fitted = [FittedStack(stack, None, None, o, o, o) for stack, o in zip(stacks, ones, strict=True)]
        step = measure_time(lambda: reconstruct(volume, grid, fitted, [1.0] * len(fitted), iterations=1), False)
        planes = volume[: max(1, _VOXELS // volume[0].numel())]
        edges = GuidingEdges([planes] * max(guides, 1))
        share = len(volume) / len(planes)
        linearise = share * measure_time(lambda: edges.linearise_around(planes))
        form = SlopeForm(planes.expand(6, *planes.shape))
        apply = share * measure_time(lambda: form(planes))
        agree = _STEPS * step
        # To fit a stack to the others takes about as long as to register it to one.
        start, early = [self.pair_seconds * len(stacks) if len(stacks) > 1 else _SHORT], 0.0
        trained = set[int]()
        for stack in stacks:
            if self.networks is None or self.thin is None:
                start.append(_SHORT)
                continue
            factor, one = self.networks.select_network(stack.spacing[2] / voxel_sizes(grid)[0], network)
            inferer: Any = self.thin(degradation=GaussianProfile((1, 1, factor), stack.thickness))
            training = 0.0, 0.0
            if hasattr(inferer, "measure_training"):  # not a class, for joint_tv would carry its training
                training = training if factor in trained else inferer.measure_training(stack.voxels[None, None], one)
                trained.add(factor)
                inferer = inferer.inferer
            corner = stack.voxels[tuple(slice(max(_SIDE, n // 8)) for n in stack.voxels.shape[:2])]
            share = stack.voxels.numel() / corner.numel()
            rest = share * measure_time(partial(inferer, corner[None, None], one))
            self._measured[stack.name] = training, rest
            start.append(training[1] + rest)
            early += training[1] - training[0]
        joint = self.estimate_joint(agree, linearise, apply) if guides or self.at_once else 0.0
        return _Seconds(start, agree, joint, early)

    def estimate_joint(self, agree: float, linearise: float, apply: float) -> float:
        """Seconds of :meth:`reconstruct_jointly`.

        Args:
            agree: of the data consistency of the contrast alone.
            linearise, apply: of a form of the edges.
        """
        return agree + linearise + 6 * apply


def _add_costs(costs: Sequence[_Seconds]) -> tuple[float, float]:
    """Seconds of an exam, at least and at most."""
    most = sum(sum(cost.start) + cost.agree + cost.joint for cost in costs)
    return most - sum(cost.early for cost in costs), most


def _print_estimate(costs: Sequence[_Seconds]) -> None:
    """Print how long an exam will take."""
    tqdm.write(f"the rest of the exam will take about {format_estimate(*_add_costs(costs))}")


def _measure_field_of_view(stack: MetaTensor) -> float:
    return float(np.prod(stack.shape[2:]) * np.abs(np.linalg.det(get_affine(stack)[:3, :3])))


def _align_contrast(reference: MetaTensor, stack: MetaTensor) -> np.ndarray:
    """The motion (4, 4) in mm of a contrast onto the reference; none if it lies there already."""
    if stack is reference:
        return np.eye(4)
    lr, other = (
        attach_meta(torch.as_tensor(v)[0].cpu(), get_affine(v), {"filename_or_obj": get_file(v)})
        for v in (reference, stack)
    )
    found = find_misplacement(lr, other)
    if not found["misplaced"]:
        return np.eye(4)
    affine, quality = register_contrasts(lr, other)
    left = find_misplacement(lr, attach_meta(other.as_tensor(), affine, other.meta))
    if left["similarity"] <= found["similarity"]:
        warnings.warn(
            f"{get_file(stack)}: it may not lie on {get_file(reference)}; registration does not help.", stacklevel=2
        )
        return np.eye(4)
    shift, angle = np.linalg.norm(quality["translation_mm"]), quality["rotation_degrees"]
    warnings.warn(
        f"{get_file(stack)}: registered to {get_file(reference)}, {shift:.1f} mm and {angle:.1f} degrees away.",
        Notice,
        stacklevel=2,
    )
    return affine @ np.linalg.inv(get_affine(stack))


def _copy_axes(volume: torch.Tensor, affine: np.ndarray, reference: Any, own: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Order the axes so that the result has the stored axes of the reference, though it is restored as its own scan."""
    place = torch.from_numpy(affine)
    if ORIENTATION in reference and ORIENTATION in own:
        to_reference, to_own = (np.asarray(meta[ORIENTATION]).reshape(3, 2) for meta in (reference, own))
        stored = ornt_transform([[0, 1], [1, 1], [2, 1]], to_reference)
        volume, place = reorient_volume(volume, place, stored)
        volume, place = reorient_volume(volume, place, to_own)
    return volume, place
