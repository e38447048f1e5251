"""Batches of thin slabs, cut at random from volumes in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F

from ...degradations.base import Degradation
from ...io.naming import format_case
from ...physics.noise import estimate_noise_in_air, estimate_noise_levels
from ...physics.scale import get_in_plane_number, get_volume_scale, make_patch_size
from ...runtime.memory import move_to_device
from ...runtime.values import check_whole_numbers
from ..lists.spacing import check_scale
from .volumes import VolumeCache

AIR = 0.05  # of the normalised intensity
_TISSUE = 0.3  # least share of tissue in a slab, if the volume has such slabs
_TRIES = 20
_ORIENTATIONS = ((0, 1, 2), (0, 2, 1), (1, 2, 0))  # orders of a volume's axes; each has another axis across the slabs


def stack_to_device(device: torch.device, tensors: Mapping[str, Sequence[torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack tensors of one shape and device by name: ``(number, ...)``. A GPU gets the stacks without a wait."""
    stacks = {name: torch.stack(list(parts)) for name, parts in tensors.items()}
    return {
        name: each if each.device.type == device.type else move_to_device(each, device) for name, each in stacks.items()
    }


def find_tissue_voxels(volumes: VolumeCache, key: str, air: float = AIR) -> list[np.ndarray]:
    """Masks ``(X, Y, Z)`` of what is brighter than ``air``, in main memory, so that no draw waits for a GPU."""
    # Slice by slice in memory, as most patches are cut.
    masks = [(item[key][0] > air).permute(2, 0, 1).contiguous().cpu() for item in volumes.volumes]
    return [mask.numpy().transpose(1, 2, 0) for mask in masks]


def choose_patch_start(tissue: np.ndarray, size: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Draw the first voxel of a random patch of ``size`` that is not mostly air, by the volume's mask."""
    best = [0, 0, 0]
    most: Any = -1
    enough = _TISSUE * -(-size[0] // 2) * -(-size[1] // 2)
    for _ in range(_TRIES):
        start = x, y, z = [int(rng.integers(n - k + 1)) for n, k in zip(tissue.shape, size, strict=True)]
        tissue_voxels = np.count_nonzero(tissue[x : x + size[0] : 2, y : y + size[1] : 2, z + size[2] // 2])
        if tissue_voxels > most:
            best, most = start, tissue_voxels
        if most >= enough:
            break
    return best


def sample_gains(largest: float, slices: int, rng: np.random.Generator) -> torch.Tensor:
    """Draw the brightness of thick slices ``(1, 1, slices)``: log-normal, with a deviation of at most ``largest``."""
    return torch.from_numpy(np.exp(largest * rng.random() * rng.standard_normal((1, 1, slices)))).float()


def cut_patch(volume: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """A patch of ``(1, X, Y, Z)``, by its first voxel and its size; not a copy."""
    return volume[:, start[0] : start[0] + size[0], start[1] : start[1] + size[1], start[2] : start[2] + size[2]]


def cut_with_margin(volume: torch.Tensor, start: Sequence[int], size: Sequence[int], margin: int) -> torch.Tensor:
    """A patch of ``(1, X, Y, Z)`` with a margin on every side; outside the volume its outermost voxels are repeated."""
    first = [max(a - margin, 0) for a in start]
    last = [min(a + k + margin, n) for a, k, n in zip(start, size, volume.shape[1:], strict=True)]
    missing = [(f - a + margin, a + k + margin - b) for a, k, f, b in zip(start, size, first, last, strict=True)]
    inner = cut_patch(volume, first, [b - f for f, b in zip(first, last, strict=True)])
    if not any(n for pair in missing for n in pair):
        return inner
    return F.pad(inner[None], [n for pair in reversed(missing) for n in pair], mode="replicate")[0]


def permute_axes(tissue: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """A mask with its axes in the order of those of a channel-first volume."""
    return tissue.transpose([axis - 1 for axis in order[1:]])


def are_axes_alike(factors: Sequence[int], fourier_encoded: Sequence[bool]) -> bool:
    """Whether a volume has the same factor and the same encoding along each axis, so that slabs may cross any axis.

    Args:
        factors: of the super-resolution, for each axis.
        fourier_encoded: whether each axis is Fourier-encoded.
    """
    return len(set(factors)) == 1 and all(fourier_encoded)


def check_volume_sizes(
    volumes: VolumeCache,
    key: str,
    size: Sequence[int],
    group: str,
    option: str = "lr_patch",
    any_orientation: bool = False,
) -> None:
    """Refuse volumes smaller than a patch of this size, which ``option`` sets; with ``any_orientation`` in any
    orientation."""
    for item, entry in zip(volumes.volumes, volumes.data, strict=True):
        shape = tuple(item[key].shape[1:])
        if any(n < (max(size) if any_orientation else k) for n, k in zip(shape, size, strict=True)):
            raise ValueError(
                f"group '{group}', {format_case(entry)}: the {key} volume has {shape} voxels, fewer than the patch "
                f"{tuple(size)}; give a smaller --{option}, or leave the volume out."
            )


class PatchLoader:
    """Batches that depend only on the seed and the iteration, so that a run can resume exactly.

    Args:
        batch_size: samples per batch, over all processes, among which it must divide.
        seed: of the draws.
        device: of the batches.
        option: name of the batch size, for messages.
    """

    def __init__(self, batch_size: int, seed: int, device: torch.device | str, option: str = "batch_size") -> None:
        check_whole_numbers(**{option: batch_size})
        world = dist.get_world_size() if dist.is_initialized() else 1
        if batch_size % world:
            raise ValueError(
                f"{option} {batch_size} does not divide among {world} processes; give a multiple of {world}."
            )
        rank = dist.get_rank() if dist.is_initialized() else 0
        share = batch_size // world
        self.samples = range(rank * share, (rank + 1) * share)
        self.seed = seed
        self.device = torch.device(device)
        self.iteration = 0

    def set_iteration(self, iteration: int) -> None:
        """Set the number of batches that were drawn before the next one."""
        self.iteration = iteration

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            self.iteration += 1
            yield self._make_batch(
                [self._sample_patch(np.random.default_rng([self.seed, self.iteration, i])) for i in self.samples]
            )

    def _sample_patch(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw one sample; tensors stay on the device of the volumes, and their values are not read."""
        raise NotImplementedError(f"{type(self).__name__} must implement _sample_patch(rng) -> tensors by name.")

    def _make_batch(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of samples, on the device."""
        return stack_to_device(self.device, {key: [sample[key] for sample in samples] for key in samples[0]})


class _SlabLoader(PatchLoader):
    """Draws slabs across the last axis of volumes, or across any."""

    def __init__(
        self, lr_patch: Sequence[int], factors: Sequence[int], any_axis: bool, avoid_air: bool, *options: Any
    ) -> None:
        super().__init__(*options)
        self.air = AIR if avoid_air else -np.inf
        factors = get_volume_scale(factors)
        self.any_axis = any_axis
        if self.any_axis and len(set(factors)) > 1:
            raise ValueError(f"any_axis needs the same factor along each axis, got {tuple(factors)}; set it false.")
        self.lr_patch, self.factors = tuple(lr_patch), tuple(factors)
        self.hr_patch = tuple(k * f for k, f in zip(lr_patch, factors, strict=True))
        self.slab_orientations = torch.tensor(_ORIENTATIONS, device=self.device)

    def _sample_place(
        self, volumes: VolumeCache, masks: Sequence[np.ndarray], size: Sequence[int], rng: np.random.Generator
    ) -> tuple[int, dict[str, torch.Tensor], list[int], torch.Tensor]:
        """Draw a volume and a slab of this size: index, reordered volumes, first voxel, and slab orientation."""
        i = int(rng.integers(len(volumes)))
        orientation = int(rng.integers(len(_ORIENTATIONS))) if self.any_axis else 0
        order = (0, *(axis + 1 for axis in _ORIENTATIONS[orientation]))
        item = {key: volume.permute(order) for key, volume in volumes[i].items()}
        return (
            i,
            item,
            choose_patch_start(permute_axes(masks[i], order), size, rng),
            self.slab_orientations[orientation],
        )


class UnpairedSlabLoader(_SlabLoader):
    """Endless batches of HR slabs of the source volumes and, drawn independently, LR slabs of the target volumes.

    A batch is ``{"hr": (B, 1, sx h, sy w, sz z), "lr": (B, 1, h, w, z)}``, and

    - ``"slab_orientation"`` and ``"lr_slab_orientation"``, ``(B, 3)``: the volume's axis along each axis of the HR and
      LR slab;
    - with a margin ``"hr_context"``: the same place in the volume "hr_band", with the margin on every side;
    - with a margin ``"noise": (B, 2, h, w, z)``: normal noise for the two channels of a receiver. Its standard
      deviation is drawn for each slab and reduced by the source's own noise. So is ``"training_noise"``;
    - with ``paired`` ``"lr_source": (B, 1, h, w, z)``, made from "hr" by a known degradation.

    Slabs that are mostly air are avoided. Slabs are mirrored at random along each axis, and with ``any_axis`` turned.
    Without ``avoid_air`` and ``mirror`` they are cut uniformly, as they are.

    Args:
        source: volumes with the key "hr", and with a margin also "hr_band", the degradation's input.
        target: volumes with the key "lr".
        lr_patch: size ``(h, w, z)`` of an LR slab, or its size along both axes in plane.
        factors: of the super-resolution, for each axis.
        paired: whether the source's volumes also have the key "lr", with voxels ``factors`` times as large. Their slabs
            are then not mirrored, because k-space truncation does not keep the positions of a mirrored pair.
        batch_size, seed, device: as for :class:`PatchLoader`.
        margin: HR voxels around the HR slab; outside the volume its outermost voxels are repeated. None for methods
            that learn from slabs only.
        slices: of an LR slab, if ``lr_patch`` is one number.
        slice_axis: of the scans, to check that the voxels of LR files are ``factors`` times as large as those of HR
            files; None for no such check.
        any_axis: whether slabs are cut across any axis of the volumes, drawn for each slab, instead of the last only;
            all factors must be equal.
        fourier_encoded: whether each axis is Fourier-encoded; with ``any_axis`` alike for all.
        noise_levels: standard deviations of "noise", in units of the normalised intensity, one or more of at least 0.
            None to measure them in the air of the target's scans.
        training_noise: those of "training_noise". If they equal ``noise_levels``, both noises are the same.
        avoid_air: whether slabs that are mostly air are avoided; else every place is equally likely.
        mirror: whether slabs are mirrored at random.
    """

    def __init__(
        self,
        source: VolumeCache,
        target: VolumeCache,
        lr_patch: int | Sequence[int],
        factors: Sequence[int],
        batch_size: int,
        seed: int,
        device: torch.device | str,
        margin: int | None = None,
        slices: int = 1,
        slice_axis: str | None = None,
        any_axis: bool = False,
        fourier_encoded: Sequence[bool] = (),
        noise_levels: Sequence[float] | None = None,
        training_noise: Sequence[float] | None = None,
        paired: bool = False,
        avoid_air: bool = True,
        mirror: bool = True,
    ) -> None:
        super().__init__(make_patch_size(lr_patch, slices), factors, any_axis, avoid_air, batch_size, seed, device)
        source.to(device)
        target.to(device)
        self.mirror = mirror
        if self.any_axis and len({*fourier_encoded}) > 1:
            raise ValueError(
                "any_axis is true, but the axes are not encoded alike (fourier_encoded): slabs of one kind cannot be "
                "turned into another. Leave --any_axis out."
            )
        if slice_axis is not None:
            check_scale(source.data, target.data, factors, slice_axis)
        self.paired, self.margin = paired, margin
        check_volume_sizes(source, "hr", self.hr_patch, "source", any_orientation=self.any_axis)
        check_volume_sizes(target, "lr", self.lr_patch, "target", any_orientation=self.any_axis)
        self.source, self.target = source, target
        self.source_tissue = find_tissue_voxels(source, "hr", self.air)
        self.target_tissue = find_tissue_voxels(target, "lr", self.air)
        if margin is None:
            return
        noise_levels = estimate_noise_levels(target.volumes) if noise_levels is None else noise_levels
        self.noise_levels = check_noise_levels(noise_levels=noise_levels)
        self.training_noise = check_noise_levels(
            training_noise=noise_levels if training_noise is None else training_noise
        )
        # Sampled as LR is: noise within its band has no more power there.
        fx, fy, fz = factors
        samples = (item["hr_band"][None, :, ::fx, ::fy, ::fz] for item in source.volumes)
        self.source_noise = [estimate_noise_in_air(sample).nan_to_num(0.0).item() for sample in samples]

    def _sample_patch(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        i, source, start, orientation = self._sample_place(self.source, self.source_tissue, self.hr_patch, rng)
        sample = {}
        if self.paired:
            lr_start = [a // f for a, f in zip(start, self.factors, strict=True)]
            start = [a * f for a, f in zip(lr_start, self.factors, strict=True)]
            sample["lr_source"] = cut_patch(source["lr"], lr_start, self.lr_patch)
        hr = cut_patch(source["hr"], start, self.hr_patch)
        _, target, place, lr_orientation = self._sample_place(self.target, self.target_tissue, self.lr_patch, rng)
        mirrored, lr_mirrored = ([n for n in (1, 2, 3) if rng.random() < 0.5 and self.mirror] for _ in ("hr", "lr"))
        mirrored = [] if self.paired else mirrored
        lr = cut_patch(target["lr"], place, self.lr_patch).flip(lr_mirrored)
        sample |= {
            "hr": hr.flip(mirrored),
            "lr": lr,
            "slab_orientation": orientation,
            "lr_slab_orientation": lr_orientation,
        }
        if self.margin is None:
            return sample
        context = cut_with_margin(source["hr_band"], start, self.hr_patch, self.margin)
        existing = self.source_noise[i]
        added = _sample_added_noise(self.noise_levels, existing, rng)
        normal = torch.from_numpy(rng.standard_normal((2, *self.lr_patch), dtype=np.float32))
        further = (
            added
            if self.training_noise == self.noise_levels
            else _sample_added_noise(self.training_noise, existing, rng)
        )
        return sample | {
            "hr_context": context.flip(mirrored),
            "noise": added * normal,
            "training_noise": further * normal,
        }


def check_noise_levels(**named: Sequence[float]) -> list[float]:
    """Noise levels by name. Raises a ValueError unless they are one or more numbers of at least 0."""
    ((name, levels),) = named.items()
    if not isinstance(levels, (list, tuple)) or not levels or not all(level >= 0 for level in levels):
        raise ValueError(
            f'{name} are {levels!r}, expected a list of numbers of at least 0, as --{name} "[0.02]"; [0.0] is no noise.'
        )
    return list(levels)


def _sample_added_noise(levels: Sequence[float], existing: float, rng: np.random.Generator) -> float:
    """Draw a level, and return the noise to add to existing noise to reach it."""
    level = levels[int(rng.integers(len(levels)))]
    return max(0.0, level**2 - existing**2) ** 0.5


class PairedSlabLoader(_SlabLoader):
    """LR slabs and HR slabs at the same place, for supervised training, with "slab_orientation" as in
    :class:`UnpairedSlabLoader`.

    With ``augment`` each pair is mirrored along its first axis at random, and turned in plane by 0 to 3 quarter turns.
    This is done if the degradation treats all of these alike (``Degradation.commutes_with_rotations``). With k-space
    truncation, LR voxel i lies on HR voxel s i, which is not true for a mirrored pair.

    Args:
        volumes: with the keys "hr" and "lr"; HR has ``factors`` times the voxels of LR on each axis.
        lr_patch: size ``(h, w, z)`` of an LR slab, or its size along both axes in plane.
        degradation: makes LR from HR; of single slices in plane only.
        batch_size, seed, device: as for :class:`PatchLoader`.
        slices: of an LR slab, if ``lr_patch`` is one number.
        any_axis: as for :class:`UnpairedSlabLoader`.
        random_numbers: whether a batch has ``"random_numbers": (B, 1)`` for a loss, uniform random numbers from 0 to 1.
            Drawn here, they are the same on every device.
        augment: whether pairs are mirrored and turned in plane, if the degradation treats these alike; patches must be
            square there.
        avoid_air: as for :class:`UnpairedSlabLoader`.
    """

    def __init__(
        self,
        volumes: VolumeCache,
        lr_patch: int | Sequence[int],
        degradation: Degradation,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        slices: int = 1,
        any_axis: bool = False,
        random_numbers: bool = False,
        augment: bool = False,
        avoid_air: bool = True,
    ) -> None:
        factors, lr_patch = degradation.factors, make_patch_size(lr_patch, slices)
        if lr_patch[2] == 1:
            get_in_plane_number(list(factors))
        super().__init__(lr_patch, factors, any_axis, avoid_air, batch_size, seed, device)
        volumes.to(device)
        self.random_numbers = random_numbers
        self.augment = augment and degradation.commutes_with_rotations()
        if self.augment and (lr_patch[0] != lr_patch[1] or factors[0] != factors[1]):
            raise ValueError(
                f"lr_patch is {list(lr_patch)} and the factors are {list(factors)}: slabs that are turned need equal "
                "sizes along the first two axes."
            )
        check_volume_sizes(volumes, "lr", self.lr_patch, "source", any_orientation=self.any_axis)
        for item, entry in zip(volumes.volumes, volumes.data, strict=True):
            hr, lr = item["hr"].shape[1:], item["lr"].shape[1:]
            if any(a != b * f for a, b, f in zip(hr, lr, factors, strict=True)):
                raise ValueError(f"{entry}: HR has {tuple(hr)} voxels and LR {tuple(lr)}; factors are {factors}.")
        self.volumes = volumes
        self.tissue = find_tissue_voxels(volumes, "lr", self.air)

    def _sample_patch(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        _, item, start, orientation = self._sample_place(self.volumes, self.tissue, self.lr_patch, rng)
        hr_start = [a * f for a, f in zip(start, self.factors, strict=True)]
        pair = {"hr": cut_patch(item["hr"], hr_start, self.hr_patch), "lr": cut_patch(item["lr"], start, self.lr_patch)}
        if self.augment:
            mirrored, quarters = bool(rng.integers(2)), int(rng.integers(4))
            pair = {key: (slab.flip(1) if mirrored else slab).rot90(quarters, (1, 2)) for key, slab in pair.items()}
        chance = {"random_numbers": torch.from_numpy(rng.random(1, dtype=np.float32))} if self.random_numbers else {}
        return pair | {"slab_orientation": orientation} | chance
