"""Losses of the downsampling GAN: regularisers of kernels, and the schedule of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class DownscaleLoss(nn.Module):
    """Mean distance between two sets of LR patches, per kernel (Huang et al. 2021, eq. 3, first term)."""

    def forward(self, lr: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Two tensors ``(kernels, crops, h, w)`` to ``(kernels,)``."""
        return (lr - reference).abs().mean(dim=(1, 2, 3))


class SumToOneLoss(nn.Module):
    """``|1 - sum k|`` (Huang et al. 2021, eq. 3, second term)."""

    def forward(self, kernels: torch.Tensor) -> torch.Tensor:
        """``(kernels, K, K)`` to ``(kernels,)``."""
        return (1 - kernels.sum(dim=(1, 2))).abs()


class BoundaryLoss(nn.Module):
    """``mean |k m|``, with a mask m that is nonzero on the periphery only (Huang et al. 2021, eq. 3, third term).

    The paper does not give m. This is the mask of the code of Bell-Kligler et al. 2019. For K = 13 it is 0 except in
    the outer two pixels. There it is ``30 (1 - exp(-r^2 / (2 K^2)))`` at the distance r from the middle.

    Args:
        size: K, odd.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        position = torch.arange(size) - (size - 1) / 2
        squared = position[:, None] ** 2 + position**2
        mask = 30 * (1 - torch.exp(-squared / (2 * size**2)))
        margin = size // 4 - 1
        mask[margin : size - margin, margin : size - margin] = 0
        self.mask = nn.Buffer(mask, persistent=False)

    def forward(self, kernels: torch.Tensor) -> torch.Tensor:
        """``(kernels, K, K)`` to ``(kernels,)``."""
        return (kernels * self.mask).abs().mean(dim=(1, 2))


class SparsityLoss(nn.Module):
    """``mean |k|^0.2`` (Huang et al. 2021, eq. 3, fourth term).

    The paper writes a sum. With its weights, a sum shrinks the kernel to 0. They are those of Bell-Kligler et al. 2019,
    whose code has the mean.
    """

    def forward(self, kernels: torch.Tensor) -> torch.Tensor:
        """``(kernels, K, K)`` to ``(kernels,)``."""
        # The slope of |k|^0.2 at 0 is infinite.
        return (kernels.abs() + 1e-12).pow(0.2).mean(dim=(1, 2))


class CentreLoss(nn.Module):
    """Distance of the kernel's centre of mass from its target, in pixels (Huang et al. 2021, eq. 3, last term).

    Args:
        size: K, odd.
        offset: target of the centre, from the middle of the kernel, in HR pixels: 0 if LR voxels lie on HR voxels, 0.5
            if they lie between two (``Degradation.offset``).
    """

    def __init__(self, size: int, offset: float) -> None:
        super().__init__()
        self.position = nn.Buffer(torch.arange(size) - (size - 1) / 2 - offset, persistent=False)

    def forward(self, kernels: torch.Tensor) -> torch.Tensor:
        """``(kernels, K, K)`` to ``(kernels,)``."""
        total = kernels.sum(dim=(1, 2))
        centre = torch.stack([kernels.sum(dim=2) @ self.position, kernels.sum(dim=1) @ self.position]) / total
        # The slope of a distance at 0 is not defined.
        return (centre.square().sum(dim=0) + 1e-12).sqrt()


class KernelSchedule:
    """Weights of the regularisers, which change for each kernel on its own (Huang et al. 2021, section 2.A.2).

    They begin as ``first``. Every ``interval`` iterations the "bicubic" term is compared with ``threshold``. Once it
    was below, its weight is multiplied by ``decay`` each time, whatever the term does. When the weight is below 0.005,
    the weights in ``late`` apply. In a :class:`LossTable`, a row's weight is ``schedule["<name>"]``.

    Args:
        kernels: number of kernels.
        first: weight of each term at the beginning.
        late: weights of the terms that change once the bicubic term has little weight.
        threshold: of the bicubic term, in units of normalised intensity.
        interval: iterations between decays.
        decay: factor of a decay.

    Raises:
        ValueError: when ``first`` has no "bicubic", or ``late`` a name that ``first`` has not.
    """

    def __init__(
        self,
        kernels: int,
        first: Mapping[str, float],
        late: Mapping[str, float],
        threshold: float = 0.4,
        interval: int = 200,
        decay: float = 0.01,
    ) -> None:
        unknown = [name for name in ("bicubic", *late) if name not in first]
        if unknown:
            raise ValueError(f"KernelSchedule: {', '.join(unknown)} not among the first weights, {', '.join(first)}.")
        self.weights = {name: torch.full((kernels,), float(weight)) for name, weight in first.items()}
        self.first = {name: float(weight) for name, weight in first.items()}
        self.begun = self.weights["bicubic"].clone()
        self.late = dict(late)
        self.threshold, self.interval, self.decay = threshold, interval, decay
        self.iteration = 0

    def __getitem__(self, name: str) -> ScheduledWeight:
        """The current weight of a term."""
        if name not in self.weights:
            raise KeyError(f"KernelSchedule has no weight '{name}'; known: {', '.join(self.weights)}.")
        return ScheduledWeight(self, name)

    def to(self, device: torch.device) -> KernelSchedule:
        """Keep the weights on this device from now on."""
        self.weights = {name: weight.to(device) for name, weight in self.weights.items()}
        self.begun = self.begun.to(device)
        return self

    def step(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Look at the terms ``(kernels,)`` of an iteration, by name, and change the weights for the next."""
        self.iteration += 1
        if self.iteration % self.interval:
            return
        weight = self.weights["bicubic"]
        decays = (terms["bicubic"].to(weight) < self.threshold) | (weight < self.begun)
        weight.copy_(torch.where(decays, weight * self.decay, weight))
        for name, value in self.late.items():
            self.weights[name].masked_fill_(weight < 0.005, value)

    def state_dict(self) -> dict[str, Any]:
        """The weights and the iteration."""
        weights = {name: weight.clone() for name, weight in self.weights.items()}
        return {"iteration": self.iteration, "weights": weights, "first": self.first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        if (first := state.get("first", self.first)) != self.first:
            raise ValueError(f"its first weights were {first}, now they are {self.first}")
        self.iteration = state["iteration"]
        for name, weight in state["weights"].items():
            if weight.shape != self.weights[name].shape:
                raise ValueError(f"{len(weight)} kernels instead of {len(self.weights[name])}")
            self.weights[name].copy_(weight)


class ScheduledWeight:
    """One weight of a schedule, for a row of a :class:`~common.losses.LossTable`."""

    def __init__(self, schedule: KernelSchedule, name: str) -> None:
        self.schedule = schedule
        self.name = name

    def get_value(self) -> torch.Tensor:
        """The weights ``(kernels,)`` now."""
        return self.schedule.weights[self.name]

    def to(self, device: torch.device) -> ScheduledWeight:
        """Keep the weights of the schedule on this device from now on."""
        self.schedule.to(device)
        return self
