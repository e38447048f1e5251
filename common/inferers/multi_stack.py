"""Combine several thick stacks of one exam into one volume."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from nibabel.affines import voxel_sizes
from torch import nn

from ..degradations import GaussianProfile, make_slice_profile
from ..physics.noise import compute_tissue_details, estimate_noise_in_air
from ..runtime.memory import check_memory
from ..runtime.progress import begin_part
from ..stacks import (
    BrightnessField,
    Motion,
    SplineResampling,
    StackOperator,
    ThinSliceNetworks,
    combine_in_k_space,
    enforce_data_consistency,
    estimate_motion,
    estimate_slice_motions,
    estimate_thickness,
    make_cubic_grid,
    measure_likeness,
)
from ..transforms.labels import sample_nearest
from ..transforms.scan.extremes import locate_extremes, select_unmeasured
from ..transforms.scan.scan_statistics import CheckTrainingRanged
from ..values import parse_bool

_ALIKE = 0.5  # least likeness; measured: 0.6 for one contrast with noise of 10 %, at most 0.3 for two contrasts
_WORSE = 0.002  # decrease of the correlation that a registration may cause
_OVERLAP = 0.3  # share of a stack's tissue that must lie in the first stack
_TURNED = 0.7  # cosine between the directions across the slices of two stacks; below, one shows the other's thickness
_MEDIAN = 0.6745  # median of the absolute values of normal noise, over its standard deviation
COPIES, COPIES_OF_STACK, COPIES_OF_GUIDE = 14, 3, 14  # counted copies of the volume in float32, held at once
_ROUNDS = 2  # of registering each slice
# Factor on a stack's noise in data consistency: networks and averaging have already removed noise.
_NOISE = 2.0
_MODEL = 0.004  # standard deviation of the operators' error for a scan without noise


@dataclass
class _Stack:
    """A given stack, and its thin version."""

    voxels: torch.Tensor  # (X, Y, Z), slices along the last axis
    affine: np.ndarray  # 4x4, mm
    thin: torch.Tensor  # the network's result with thin slices, over the same field of view
    thickness: float  # of its slices in distances of their centres
    fixed: bool  # whether the thickness is known; else the other stacks may show it
    name: str  # its file
    extreme: np.ndarray  # (X, Y, Z), which voxels were set aside, and so have no measured value


@dataclass
class _Contrast:
    """A volume that was combined from the stacks of one contrast, and what it must agree with."""

    volume: torch.Tensor  # (X, Y, Z), before data consistency
    stacks: list[_Stack]
    operators: list[StackOperator]
    variances: list[float]

    def enforce_data_consistency(self, volume: torch.Tensor, **options: Any) -> torch.Tensor:
        """See :func:`common.stacks.enforce_data_consistency`."""
        measured = [stack.voxels for stack in self.stacks]
        return enforce_data_consistency(volume, measured, self.operators, self.variances, **options)


class StacksInferer(Inferer):
    """Make each stack thin, find where it lies, combine all, and correct the result until it agrees with each.

    A stack that does not fit the first is left out with a warning that says why. The result has cubic voxels, and the
    field of view and brightness of the first stack.

    Args:
        networks: networks by the number of thin slices per thick slice.
        thin: function that makes the inferer for thin slices, with the slice profile as ``degradation``.
        profile: slice thickness in distances of the slices' centres, or "auto": from the protocol, else from the other
            stacks.
        spacing: of the result in mm, above 0; None for the finest spacing of all stacks.
        slice_motion: whether to register each slice separately.

    Attributes:
        report: on each stack of the last exam, for the description of the result.
    """

    is_self_trained = False

    def __init__(
        self,
        networks: ThinSliceNetworks,
        thin: Callable[..., Inferer],
        profile: float | str = "auto",
        spacing: float | None = None,
        slice_motion: bool | str = False,
    ) -> None:
        super().__init__()
        if spacing is not None and not 0 < spacing < math.inf:
            raise ValueError(f"spacing is {spacing!r}, expected mm above 0, or null for the finest in plane.")
        self.networks = networks
        self.thin, self.profile, self.spacing = thin, profile, spacing
        self.slice_motion = parse_bool(slice_motion, "slice_motion")
        self.report: dict[str, Any] = {}

    def __call__(
        self,
        inputs: MetaTensor | Any,
        network: nn.Module | Any,
        others: Sequence[MetaTensor | Any] = (),
        guide: MetaTensor | Any = None,
    ) -> MetaTensor:
        """Make one volume from the stacks of an exam.

        Args:
            inputs: first stack ``(1, 1, X, Y, Z)`` with its affine, about in [0, 1], slices along the last axis.
            network: for one factor; those for other factors are loaded when needed.
            others: the further stacks.
            guide: a scan of another contrast that lies on the first stack, ``(1, 1, X, Y, Z)`` with its affine, about
                in [0, 1]; its edges guide the data consistency.

        Returns:
            Volume ``(1, 1, X', Y', Z')`` with its affine.

        Raises:
            ValueError: when no other stack fits the first, and there is no guide.
        """
        self.report = {}
        stacks_in = [inputs, *others]
        voxel = self.spacing or min(float(get_spacing(stack).min()) for stack in stacks_in)
        size, affine = make_cubic_grid(inputs.shape[2:], get_affine(inputs), voxel)
        copies = COPIES + COPIES_OF_STACK * len(stacks_in) + (0 if guide is None else COPIES_OF_GUIDE)

        def advise(excess: float) -> str:
            return f"give --spacing {voxel * 1.05 * excess ** (1 / 3):.2g}, or free some"

        check_memory(size, copies, inputs.device, "a volume", advise)
        stacks = []
        for i, stack in enumerate(stacks_in):
            with begin_part(i, len(stacks_in) + 1):
                stacks.append(self._super_resolve_stack(stack, network, voxel))
        with begin_part(len(stacks_in), len(stacks_in) + 1):
            prepared = self._prepare_contrast(stacks, size, affine, guide is not None)
            if guide is not None:
                places = np.linalg.inv(get_affine(guide)) @ affine
                guide = SplineResampling(guide.shape[2:], size, places)(torch.as_tensor(guide)[0, 0].float())
            volume = self._reconstruct(prepared, affine, [] if guide is None else [guide])
        left = select_unmeasured(inputs.meta, [(~stack.extreme, stack.affine) for stack in prepared.stacks[1:]])
        meta = {key: [value] for key, value in left.items()}
        return MetaTensor(volume[None, None], affine=torch.from_numpy(affine)[None], meta=meta)

    def _super_resolve_stack(self, stack: MetaTensor, network: nn.Module, voxel: float) -> _Stack:
        """Make a stack thin by a network, to nearly the result's voxel size."""
        affine = get_affine(stack)
        factor, network = self.networks.select_network(get_spacing(stack)[2] / voxel, network)
        CheckTrainingRanged("image", self.networks.ranges[factor])({"image": stack[0]})
        inferer = self.thin(degradation=make_slice_profile((1, 1, factor), self.profile))
        thin = inferer(stack, network)
        report = {"Factor": factor, "Weights": self.networks.files[factor].name, **getattr(inferer, "report", {})}
        name = get_file(stack)
        self.report[name] = report
        voxels, thin = (torch.as_tensor(v)[0, 0].float() for v in (stack, thin))
        fixed = self.profile != "auto" or report.get("ProfileFrom") == "protocol"
        extreme = locate_extremes(voxels.shape, affine, stack.meta)
        return _Stack(voxels, affine, thin, report.get("Profile", 1.0), fixed, name, extreme)

    def _prepare_contrast(
        self, stacks: Sequence[_Stack], size: Sequence[int], affine: np.ndarray, alone: bool
    ) -> _Contrast:
        """Combine the stacks of a contrast into a volume of this size and affine; ``alone``: whether one is enough."""
        first = stacks[0]
        start = SplineResampling(
            first.thin.shape, size, np.linalg.inv(_compute_thin_affine(first.affine, first)) @ affine
        )(first.thin)
        accepted = [first]
        for stack in stacks[1:]:
            motion = self._register(stack, start, affine)
            stack = replace(stack, affine=motion.matrix @ stack.affine)
            operator = _make_operator(size, affine, stack)
            similarity = measure_likeness(stack.voxels, operator(start), operator.is_inside)
            if not self._is_rejected(stack, motion, similarity):
                accepted.append(stack)
        if len(accepted) < 2 and not alone:
            reasons = "; ".join(
                f"{name}: {stack_report['LeftOut']}"
                for name, stack_report in self.report.items()
                if "LeftOut" in stack_report
            )
            raise ValueError(
                f"{first.name}: no other stack fits it ({reasons}). Use it alone, without --together, or leave out "
                "stacks of another contrast or another person."
            )
        accepted = [self._estimate_thickness(stack, accepted) for stack in accepted]
        operators = [_make_operator(size, affine, stack) for stack in accepted]
        thin, inside = [], []
        for i, (stack, operator) in enumerate(zip(accepted, operators, strict=True)):
            thin_volume = stack.thin
            if i > 0:
                spacing = voxel_sizes(stack.affine)
                brightness = BrightnessField(stack.voxels, operator(start), operator.is_inside, spacing)
                thin_volume, voxels = (v / brightness.evaluate(v.shape, v.device) for v in (thin_volume, stack.voxels))
                accepted[i] = replace(stack, voxels=voxels)
                self.report[stack.name]["Brightness"] = round(brightness.mean, 4)
            resampling = SplineResampling(
                thin_volume.shape, size, np.linalg.inv(_compute_thin_affine(stack.affine, stack)) @ affine
            )
            thin.append(resampling(thin_volume) if i > 0 else start)
            extreme = torch.from_numpy(sample_nearest(stack.extreme, stack.affine, size, affine)).to(thin_volume.device)
            inside.append(resampling.find_inside(thin_volume.device) & ~extreme)
        noise = [_estimate_noise(stack.voxels) for stack in accepted]
        volume = combine_in_k_space(thin, inside, [o.across for o in operators], [o.sigma for o in operators], noise)
        variances = [(_NOISE * sigma) ** 2 + _MODEL**2 for sigma in noise]
        return _Contrast(volume, accepted, operators, variances)

    def _reconstruct(self, contrast: _Contrast, affine: np.ndarray, guides: Sequence[torch.Tensor]) -> torch.Tensor:
        """The volume of a contrast that agrees with its stacks; each slice is registered first, if wanted."""
        volume = contrast.enforce_data_consistency(contrast.volume, guides=guides)
        for _ in range(_ROUNDS if self.slice_motion else 0):
            voxels_now = volume.cpu().numpy()
            for i, stack in enumerate(contrast.stacks):
                slice_motions = estimate_slice_motions(
                    voxels_now, affine, stack.voxels.cpu().numpy(), stack.affine, stack.thickness
                )
                contrast.operators[i] = _make_operator(volume.shape, affine, stack, slice_motions)
            volume = contrast.enforce_data_consistency(volume, guides=guides)
        return volume

    def _register(self, stack: _Stack, volume: torch.Tensor, affine: np.ndarray) -> Motion:
        """The motion of a stack onto a volume."""
        motion = estimate_motion(
            volume.cpu().numpy(),
            affine,
            (stack.thin.cpu().numpy(), _compute_thin_affine(stack.affine, stack)),
            (stack.voxels.cpu().numpy(), stack.affine),
            stack.thickness,
        )
        self.report[stack.name] |= {
            "Moved": np.round(motion.numbers, 3).tolist(),
            "Correlation": [round(each, 4) for each in motion.correlation],
            "Overlap": round(motion.overlap, 3),
        }
        return motion

    def _estimate_thickness(self, stack: _Stack, accepted: Sequence[_Stack]) -> _Stack:
        """Set a stack's thickness from others that are fine across its slices, unless its thickness is known."""
        across = stack.affine[:3, 2] / np.linalg.norm(stack.affine[:3, 2])
        estimates: list[Any] = []
        for other in accepted:
            along = other.affine[:3, 2] / np.linalg.norm(other.affine[:3, 2])
            if not stack.fixed and other is not stack and abs(across @ along) < _TURNED:
                known = other.thin.cpu().numpy(), _compute_thin_affine(other.affine, other)
                estimates.append(estimate_thickness(*known, stack.voxels.cpu().numpy(), stack.affine))
        estimates = [thickness for thickness in estimates if thickness is not None]
        if not estimates:
            return stack
        thickness = float(np.mean(estimates))
        self.report[stack.name] |= {"ProfileFrom": "other stacks", "Profile": round(thickness, 3)}
        return replace(stack, thickness=thickness)

    def _is_rejected(self, stack: _Stack, motion: Motion, similarity: float) -> bool:
        """Whether a stack does not fit the first, with a warning that says why."""
        before, after = motion.correlation
        self.report[stack.name]["Likeness"] = round(similarity, 3)
        reason = None
        if motion.overlap < _OVERLAP:
            reason = f"{motion.overlap:.0%} of its tissue lies in the first stack, expected at least {_OVERLAP:.0%}"
        elif after < before - _WORSE:
            reason = (
                f"registration makes it less like the first stack: correlation {before:.2f} before, {after:.2f} after"
            )
        elif similarity < _ALIKE:
            reason = (
                f"its contrast differs: its detail has a correlation of {similarity:.2f} with that of the first stack, "
                f"expected at least {_ALIKE}"
            )
        if reason is not None:
            self.report[stack.name]["LeftOut"] = reason
            warnings.warn(f"{stack.name}: left out; {reason}.", stacklevel=2)
        return reason is not None


def _estimate_noise(voxels: torch.Tensor) -> float:
    """Standard deviation of a stack's noise ``(X, Y, Z)``, in air, or in the detail of tissue if air is masked."""
    noise = float(estimate_noise_in_air(voxels[None, None])[0])
    if not math.isnan(noise):
        return noise
    details, tissue = compute_tissue_details(voxels.double().cpu().numpy(), (0, 1))
    return float(np.median(np.abs(details[tissue]))) / _MEDIAN if tissue.any() else 0.0


def _make_operator(
    size: Sequence[int], affine: np.ndarray, stack: _Stack, slice_motions: np.ndarray | None = None
) -> StackOperator:
    """The operator from a volume of this size and affine to a stack."""
    known = stack.voxels.shape, stack.affine, stack.thickness
    operator = StackOperator(size, affine, *known, slice_motions, stack.voxels.device)
    operator.is_inside *= torch.from_numpy(~stack.extreme).to(operator.is_inside)
    return operator


def _compute_thin_affine(affine: np.ndarray, stack: _Stack) -> np.ndarray:
    """The affine of a stack's thin version, from an affine of the stack."""
    return GaussianProfile((1, 1, stack.thin.shape[2] / stack.voxels.shape[2])).compute_hr_affine(affine)


def get_file(stack: MetaTensor) -> str:
    """A stack's file; for a batch of one, that of its only stack."""
    file = stack.meta.get("filename_or_obj", "stack")
    return str(file[0] if isinstance(file, list | tuple) else file)


def get_spacing(stack: MetaTensor) -> np.ndarray:
    return voxel_sizes(get_affine(stack))


def get_affine(volume: MetaTensor) -> np.ndarray:
    """Affine of a volume, or of a batch of one."""
    return np.asarray(volume.affine, dtype=np.float64).reshape(-1, 4, 4)[0]
