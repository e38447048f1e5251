"""Batches of coordinates and of the values that the stacks of an exam measured there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ...runtime.memory import move_to_device
from ...runtime.values import check_whole_numbers


@dataclass(frozen=True)
class MeasuredVoxels:
    """The voxels of a stack.

    Attributes:
        coordinates: of their centres in mm, ``(N, 3)``.
        values: ``(N,)``.
        weights: how much they count, 0 to 1, ``(N,)``.
        across: the direction across the slices, as long as the standard deviation of the slice profile in mm, ``(3,)``.
    """

    coordinates: torch.Tensor
    values: torch.Tensor
    weights: torch.Tensor
    across: torch.Tensor


class CoordinateLoader:
    """Endless batches of random voxels of each contrast, with points across the slice of each.

    A batch is ``{"coordinates": (contrasts, B, points, 3), "values": (contrasts, B)}``. A single point is the centre of
    the voxel, as in McGinnis et al. 2023. The mean over several is the mean over the slice profile: each is drawn from
    an equal share of the Gaussian. Of voxels that count less, only a random share is used.

    Args:
        contrasts: the stacks of each contrast.
        batch_size: voxels of each contrast per batch.
        points: for each voxel.
        seed: of the draws.
    """

    def __init__(
        self, contrasts: Sequence[Sequence[MeasuredVoxels]], batch_size: int, points: int = 1, seed: int = 0
    ) -> None:
        check_whole_numbers(batch_size=batch_size, points=points)
        self.batch_size, self.points, self.seed = batch_size, points, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.contrasts = [self._join_stacks(stacks) for stacks in contrasts]
        self.device = self.contrasts[0][0].device

    def _join_stacks(self, stacks: Sequence[MeasuredVoxels]) -> tuple[torch.Tensor, ...]:
        """Coordinates, values, stack of each used voxel, and the directions across the slices of all stacks."""
        parts = []
        for i, each in enumerate(stacks):
            chance = torch.rand(len(each.values), generator=self.generator)
            used = move_to_device(chance, each.values.device) < each.weights
            parts.append((each.coordinates[used], each.values[used], torch.full_like(each.values[used], i).long()))
        coordinates, values, indices = (torch.cat(part) for part in zip(*parts, strict=True))
        if not len(values):
            raise ValueError("a contrast has no voxel that counts, expected at least one; leave the contrast out.")
        return coordinates, values, indices, torch.stack([each.across for each in stacks])

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            drawn = [self._sample_voxels(*contrast) for contrast in self.contrasts]
            coordinates, values = (torch.stack(part) for part in zip(*drawn, strict=True))
            yield {"coordinates": coordinates, "values": values}

    def _sample_voxels(
        self, coordinates: torch.Tensor, values: torch.Tensor, indices: torch.Tensor, across: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points ``(B, points, 3)`` and values ``(B,)`` of random voxels."""
        chosen = torch.randint(len(values), (self.batch_size,), generator=self.generator)
        shares = torch.rand(self.batch_size, self.points, generator=self.generator)
        chosen, shares = (move_to_device(each, values.device) for each in (chosen, shares))
        centres = coordinates[chosen][:, None]
        if self.points == 1:
            return centres, values[chosen]
        quantiles = (torch.arange(self.points, device=values.device) + shares) / self.points
        distances = torch.special.ndtri(quantiles.clamp(1e-4, 1 - 1e-4))  # in standard deviations
        return centres + distances[..., None] * across[indices[chosen]][:, None], values[chosen]
