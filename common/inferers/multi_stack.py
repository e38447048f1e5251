"""Combine several thick stacks of one exam into one volume."""

from __future__ import annotations

import itertools
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from nibabel.affines import voxel_sizes
from torch import nn
from tqdm import tqdm

from ..degradations.fitted_profile import BELIEVED_WIDTHS, USUAL_WIDTHS, FittedProfile
from ..degradations.profiles import GaussianProfile
from ..geometry.nearest import sample_nearest
from ..geometry.registration.stacks import Region, Registration, average_like, register_stacks
from ..geometry.resampling import SplineResampling, make_cubic_grid
from ..geometry.stack import Stack
from ..io.images import open_image
from ..io.slice_thickness import read_profile_width
from ..metrics.verdict import CubicComparison
from ..physics.noise import estimate_noise_in_slices
from ..runtime.errors import Notice
from ..runtime.memory import check_memory, move_to_device
from ..runtime.progress import begin_part, move_bar
from ..stacks.combination import combine_in_k_space
from ..stacks.fitting import FittedStack, compare_with_stacks, fit_stacks, reconstruct
from ..stacks.least_squares import MODEL_ERROR, NOISE_FACTOR
from ..stacks.report import report_misfits, report_slices
from ..stacks.thickness import estimate_thickness
from ..stacks.thin import ThinSliceNetworks
from ..transforms.scan.extremes import find_constant_regions, find_set_aside, select_unmeasured
from ..transforms.scan.scan_statistics import CheckTrainingRanged
from ..transforms.scan.volume import attach_meta, get_intensity_range

_TURNED = 0.7  # cosine between the directions across the slices of two stacks; below, one shows the other's thickness
_COPIES, _COPIES_OF_STACK, _COPIES_OF_GUIDE = 14, 3, 14  # counted copies of the volume in float32, held at once
_COARSE = 1.0  # mm of the voxels on which motion and brightness are fitted


class StacksInferer(Inferer):
    """Find where the stacks of an exam lie, leave out what does not fit, make each thin, and combine all.

    Registration, contrast, brightness and motion are judged before any network runs. The stack that agrees best with
    the others is the reference, unless there is a guide or a region; then it is the first. The result has cubic
    voxels, and the field of view and brightness of the reference. One stack alone is made thin, and made to agree.

    Args:
        networks: networks by the number of thin slices per thick slice; None to interpolate by cubic splines instead.
        thin: function that makes the inferer for thin slices, with the slice profile as ``degradation``.
        profile: slice thickness in distances of the slices' centres, or "auto": from the protocol, else from the other
            stacks, else from the stack itself.
        spacing: of the result in mm, above 0; None for the finest spacing of all stacks.
        region: file of a mask that lies on the first stack, on any grid. Stacks are registered and compared in
            it alone.
        register: False for stacks that are aligned already: neither they nor their slices are moved, but what does not
            fit is still left out. True and "auto" register them.

    Attributes:
        report: on each stack of the last exam, for the description of the result.
        outside: what of the stacks is outside of the weights' training range, empty for nothing; None if not known.
        pair_seconds: how long it took to register two stacks.
        comparison: of the last volume with the interpolation of one of its stacks; None if it cannot be compared.
    """

    is_self_trained = False

    def __init__(
        self,
        networks: ThinSliceNetworks | None = None,
        thin: Callable[..., Inferer] | None = None,
        profile: float | str = "auto",
        spacing: float | None = None,
        region: str | os.PathLike | None = None,
        register: bool | str = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(register, bool) and register != "auto":
            raise ValueError(f"register is {register!r}, expected True, False or auto.")
        if spacing is not None and not 0 < spacing < math.inf:
            raise ValueError(f"spacing is {spacing!r}, expected mm above 0, or null for the finest in plane.")
        self.networks = networks
        self.thin, self.profile, self.spacing, self.region = thin, profile, spacing, region
        self.is_aligned = register is False
        self.report: dict[str, Any] = {}
        self.comparison: CubicComparison | None = None
        self.outside: str | None = None
        self.pair_seconds = 0.0
        self._measured: dict[str, Any] = {}  # seconds of the training on a stack, and of making it thin, by its name

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
        """
        self.report = {}
        images = {get_file(image): image for image in (inputs, *others)}
        voxel = self.spacing or min(float(voxel_sizes(get_affine(image)).min()) for image in images.values())
        stacks = self.place_stacks(images, guide is not None)
        reference = images[stacks[0].name]
        size, affine = make_cubic_grid(stacks[0].voxels.shape, stacks[0].affine, voxel)
        check_copies(size, voxel, len(stacks), 0 if guide is None else 1, inputs.device)
        passed, parts, rest = self.measure_parts(stacks, affine, size, network, 0 if guide is None else 1)
        costs = passed, sum(parts), rest
        move_bar(costs)
        with begin_part(1, costs):
            volume, fitted, variances = self.make_start(stacks, images, size, affine, network, parts)
        self.report_places(images, fitted)
        if guide is not None:
            places = np.linalg.inv(get_affine(guide)) @ affine
            guide = SplineResampling(guide.shape[2:], size, places)(torch.as_tensor(guide)[0, 0].float())
        guides = [] if guide is None else [guide]
        with begin_part(2, costs):
            volume = self.solve_alone((volume, affine, fitted, variances), guides)
        self.judge_stacks(volume, affine, fitted)
        volume = convert_range(volume, reference, inputs)
        measured = [find_measured(each.stack) for each in fitted[1:]]
        meta = {key: [value] for key, value in select_unmeasured(reference.meta, measured).items()}
        return MetaTensor(volume[None, None], affine=torch.from_numpy(affine)[None], meta=meta)

    def report_places(
        self, images: Mapping[str, MetaTensor], fitted: Sequence[FittedStack], move: np.ndarray | None = None
    ) -> None:
        """Report the rigid motion (4, 4) in mm of each stack onto the result, as a whole; ``move`` comes after it."""
        for each in fitted:
            place = each.stack.affine @ np.linalg.inv(get_affine(images[each.stack.name]))
            place = place if move is None else move @ place
            self.report[each.stack.name]["Placed"] = np.round(place, 6).tolist()

    def judge_stacks(self, volume: torch.Tensor, affine: np.ndarray, fitted: Sequence[FittedStack]) -> None:
        """Compare a volume with its stacks, and report by how much it misses each, beside the stack's noise.

        Args:
            volume, affine, fitted: as for :func:`~common.stacks.fitting.compare_with_stacks`.
        """
        known = [self.report[each.stack.name].get("OutsideTraining") for each in fitted]
        self.outside = next((text for text in known if text), None if None in known else "")
        self.comparison = compare_with_stacks(volume, affine, fitted)
        if self.comparison is not None and len(fitted) > 1:
            for name, found in report_misfits(self.comparison, fitted).items():
                self.report[name] |= found

    def measure_parts(
        self, stacks: Sequence[Stack], affine: np.ndarray, size: Sequence[int], network: nn.Module, guides: int
    ) -> tuple[float, Sequence[float], float]:
        """What was done, each part of :meth:`make_start`, and :meth:`solve_alone` cost, for the progress bar."""
        return 0.0, [1.0] * (len(stacks) + 1), 1.0

    def solve_alone(self, start: tuple[Any, Any, Any, Any], guides: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """Make the volume of one contrast agree with its stacks; ``start`` and guides are for ``reconstruct``."""
        return reconstruct(*start, guides)

    def place_stacks(self, images: Mapping[str, MetaTensor], first: bool = False) -> list[Stack]:
        """Register the stacks of one contrast to a reference, and leave out those that do not fit, with a warning.

        Args:
            images: the stacks by their files, as for ``inputs``.
            first: whether the first is the reference in any case.

        Returns:
            The reference, and the stacks that fit, where they lie on it.

        Raises:
            ValueError: when at least as many stacks are mirrored against the reference as agree with it.
        """
        stacks: list[Stack] = []
        for stack in map(self._read_stack, images.values()):
            if (same := next((each for each in stacks if torch.equal(each.voxels, stack.voxels)), None)) is None:
                stacks.append(stack)
            else:
                self.report[stack.name]["CopyOf"] = same.name
                warnings.warn(f"{stack.name}: left out; it is a copy of {same.name}.", stacklevel=2)
        region = self._read_region(stacks[0])
        registrations: dict[tuple[int, int], Registration] = {}

        def register(i: int, j: int) -> Registration:
            if (i, j) not in registrations:
                registrations[i, j] = self.register_pair(stacks[i], stacks[j], region)
            return registrations[i, j]

        main = 0
        if not first and region is None and len(stacks) > 2:
            support = np.zeros(len(stacks))
            for i, j in itertools.combinations(range(len(stacks)), 2):
                found = register(i, j)
                support[[i, j]] += found.volume * max(0.0, found.correlation[1]) * (found.misfit is None)
            main = int(support.argmax())
        accepted, mirrored = [stacks[main]], []
        registered = {j: register(main, j) for j in range(len(stacks)) if j != main}
        for j, found in registered.items():
            stack = stacks[j]
            self.report[stack.name] |= {
                "Moved": np.round(found.motion, 3).tolist(),
                "Correlation": [round(each, 4) for each in found.correlation],
                "Overlap": round(found.overlap, 3),
                "Reversed": None if math.isnan(found.reversal) else round(found.reversal, 4),
            }
            if found.deformation is not None:
                longest = found.deformation.displacements.norm(dim=0).max()
                self.report[stack.name]["Deformed"] = round(float(longest), 2)
            others = [each for k, each in registered.items() if k != j and each.misfit is None]
            reason = found.misfit or found.compare(others)
            if reason is None:
                place = found.matrix @ stack.affine
                accepted.append(replace(stack, affine=place, deformation=found.deformation))
            else:
                reason += "; not registered, as register is False" * self.is_aligned
                mirrored += [stack.name] if found.mirrored else []
                self.report[stack.name]["LeftOut"] = reason
                warnings.warn(f"{stack.name}: left out; {reason}.", stacklevel=2)
        if mirrored and len(mirrored) >= len(accepted):
            raise ValueError(
                f"{stacks[main].name} and {', '.join(mirrored)}: one is mirrored, so that left and right or two other "
                "sides are exchanged, and no other stack says which. Correct its header, or leave it out."
            )
        self.report[stacks[main].name]["Reference"] = True
        return [self._estimate_thickness(stack, accepted, images[stack.name]) for stack in accepted]

    def register_pair(self, first: Stack, second: Stack, region: Region | None) -> Registration:
        """Register two stacks, and remember how long that took; arguments as for ``register_stacks``."""
        began = time.perf_counter()
        found = register_stacks(first, second, region, moves=not self.is_aligned)
        self.pair_seconds = time.perf_counter() - began
        return found

    def make_start(
        self,
        stacks: Sequence[Stack],
        images: Mapping[str, MetaTensor],
        size: Sequence[int],
        affine: np.ndarray,
        network: nn.Module,
        costs: Sequence[float],
    ) -> tuple[torch.Tensor, list[FittedStack], list[float]]:
        """Fit the stacks, make each thin by a network, and combine them: the start of data consistency.

        Args:
            stacks: from :meth:`place_stacks`.
            images: all stacks by their files.
            size, affine: of the result, in mm.
            network: for one factor.
            costs: of the fit, and of making each stack thin, for the progress bar.

        Returns:
            The volume, the stacks with their brightness, motions and weights, and the variance of each stack.
        """
        region = self._read_region(stacks[0])
        voxel = float(np.linalg.norm(affine[:3, 0]))
        with begin_part(0, costs):
            coarse = make_cubic_grid(stacks[0].voxels.shape, stacks[0].affine, max(voxel, _COARSE))
            fitted, shown = fit_stacks(stacks, *coarse, region, not self.is_aligned)
        thin, inside = [], []
        tuned: dict[int, nn.Module] = {}
        for i, each in enumerate(fitted):
            self.report[each.stack.name] |= report_slices(each)
            whole = each.fill_slices(shown, coarse[1])
            with begin_part(i + 1, costs):
                number = f"stack {i + 1} of {len(fitted)}"
                volume = self._make_thin(whole, images[each.stack.name], each.stack, network, voxel, tuned, number)
            resampling = each.stack.make_resampling(volume.shape, size, affine)
            thin.append(resampling(volume))
            unmeasured = sample_nearest(~each.stack.is_measured.cpu().numpy(), each.stack.affine, size, affine)
            inside.append(resampling.find_inside(volume.device) & ~torch.from_numpy(unmeasured).to(volume.device))
        noise = [estimate_noise_in_slices(each.stack.voxels) for each in fitted]
        errors = [max(each.error, MODEL_ERROR) for each in fitted]
        doubts = [math.sqrt(n**2 + 4 * (e**2 - MODEL_ERROR**2)) for n, e in zip(noise, errors, strict=True)]
        operators = [each.make_operator(size, affine) for each in fitted]
        volume = combine_in_k_space(thin, inside, [o.across for o in operators], [o.sigma for o in operators], doubts)
        factor = 1.0 if self.networks is None else NOISE_FACTOR
        return volume, fitted, [(factor * n) ** 2 + e**2 for n, e in zip(noise, errors, strict=True)]

    def _read_stack(self, image: MetaTensor) -> Stack:
        """A stack with the thickness that the protocol or the option says, else 1."""
        voxels, affine, name = torch.as_tensor(image)[0, 0].float(), get_affine(image), get_file(image)
        width: Any = self.profile if self.profile != "auto" else read_profile_width(image)
        source = "option" if self.profile != "auto" else "protocol"
        if width is not None and source == "protocol" and not BELIEVED_WIDTHS[0] <= width <= BELIEVED_WIDTHS[1]:
            warnings.warn(
                f"{name}: by SliceThickness slices are {width:.3g} times as thick as they are apart, expected "
                f"{BELIEVED_WIDTHS[0]} to {BELIEVED_WIDTHS[1]}: ignored; to use it, give --adapt_profile.",
                Notice,
                stacklevel=2,
            )
            width = None
        self.report[name] = {} if width is None else {"ProfileFrom": source, "Profile": round(float(width), 3)}
        extreme = torch.from_numpy(find_set_aside(voxels.shape, affine, image.meta, "extreme"))
        return Stack(voxels, affine, float(width or 1.0), name, move_to_device(~extreme, voxels.device))

    def _read_region(self, stack: Stack) -> Region | None:
        """The region, if there is one."""
        if self.region is None:
            return None
        image = open_image(self.region)
        mask = torch.from_numpy(np.squeeze(np.asarray(image.dataobj, dtype=np.float32)) > 0).float()
        region = Region(move_to_device(mask, stack.voxels.device), np.asarray(image.affine, dtype=np.float64))
        if not bool(region.sample(tuple(stack.voxels.shape), stack.affine).any()):
            raise ValueError(
                f"--region {self.region}: no voxel above 0 lies in {stack.name}; name a mask that lies on this stack."
            )
        return region

    def _estimate_thickness(self, stack: Stack, accepted: Sequence[Stack], image: MetaTensor) -> Stack:
        """Set a stack's thickness, unless it is known, from others that are fine across its slices, or from itself."""
        report = self.report[stack.name]
        if "Profile" in report:
            return stack
        estimates = [
            # The other shows averages over its own slices, too.
            estimate_thickness(
                other.voxels.cpu().numpy(), other.affine, average_like(stack, other).cpu().numpy(), stack.affine
            )
            for other in accepted
            if other is not stack and abs(stack.normal @ other.normal) < _TURNED
        ]
        known = [thickness for thickness in estimates if thickness is not None]
        if known:
            source, thickness = "other stacks", float(np.clip(np.mean(known), *USUAL_WIDTHS))
        else:
            width, _ = FittedProfile((1, 1, 1)).estimate_width(image)
            source, thickness = "scan" if width else "assumed", width or 1.0
        report |= {"ProfileFrom": source, "Profile": round(thickness, 3)}
        return replace(stack, thickness=thickness)

    def _make_thin(
        self,
        voxels: torch.Tensor,
        image: MetaTensor,
        stack: Stack,
        network: nn.Module,
        voxel: float,
        tuned: dict[int, nn.Module],
        number: str,
    ) -> torch.Tensor:
        """Make a stack with corrected voxels thin by a network, to nearly the result's voxel size.

        The first stack of each factor fine-tunes the network, and ``tuned`` keeps it for the other stacks of the exam.
        Without networks it stays as it is.
        """
        if self.networks is None or self.thin is None:
            return voxels
        factor, network = self.networks.select_network(stack.spacing[2] / voxel, network)
        seen: Any = image[0]
        seen = attach_meta(voxels[None], seen.affine, seen.meta)  # without the slices that do not count
        found = CheckTrainingRanged("image", self.networks.ranges[factor], (1, 1, factor))({"image": seen})
        self.report[stack.name]["OutsideTraining"] = found.get("outside_training")
        inferer: Any = self.thin(degradation=GaussianProfile((1, 1, factor), stack.thickness))
        self.report[stack.name] |= {"Factor": factor, "Weights": self.networks.files[factor].name}
        if factor in tuned:
            thin = getattr(inferer, "inferer", inferer)(voxels[None, None], tuned[factor])
        else:
            if getattr(inferer, "is_self_trained", False):
                tqdm.write(f"{number}:")
                inferer.measured = self._measured.get(stack.name)
            thin = inferer(voxels[None, None], network)
            tuned[factor] = getattr(inferer, "chosen", network)
            self.report[stack.name] |= getattr(inferer, "report", {})
        return torch.as_tensor(thin)[0, 0].float()


def find_measured(stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Where a stack measured: a mask without voxels that are extreme or exactly constant, and its affine."""
    return stack.is_measured.cpu().numpy() & ~find_constant_regions(stack.voxels.cpu().numpy()), stack.affine


def convert_range(volume: torch.Tensor, source: MetaTensor, target: MetaTensor) -> torch.Tensor:
    """Values in the normalised range of one stack, in that of another, by whose range the units are restored."""
    (low, high), (first, last) = get_intensity_range(source), get_intensity_range(target)
    return (volume * (high - low) + low - first) / (last - first)


def check_copies(size: Sequence[int], voxel: float, stacks: int, guides: int, device: torch.device) -> None:
    """Check that there is memory for a volume of this size, with voxels in mm, from some stacks and guides."""

    def advise(excess: float) -> str:
        return f"give --spacing {voxel * 1.05 * excess ** (1 / 3):.2g}, or free some"

    check_memory(size, _COPIES + _COPIES_OF_STACK * stacks + _COPIES_OF_GUIDE * guides, device, "a volume", advise)


def get_file(stack: MetaTensor) -> str:
    """A stack's file; for a batch of one, that of its only stack."""
    file = stack.meta.get("filename_or_obj", "stack")
    return str(file[0] if isinstance(file, list | tuple) else file)


def get_affine(volume: MetaTensor) -> np.ndarray:
    """Affine of a volume, or of a batch of one."""
    return np.asarray(volume.affine, dtype=np.float64).reshape(-1, 4, 4)[0]
