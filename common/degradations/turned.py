"""A degradation of volumes that are stored with other axes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .base import Degradation


class TurnedDegradation(Degradation):
    """Degrade volumes whose axes have another order or direction than those of a degradation.

    Args:
        degradation: of the turned volumes.
        order: axis of the stored volume (0, 1, 2) that becomes each axis.
        mirrored: for each axis of the stored volume, whether its direction is reversed.
    """

    whole_factors = False

    def __init__(self, degradation: Degradation, order: Sequence[int], mirrored: Sequence[bool]) -> None:
        factors, offset = [1.0] * 3, [0.0] * 3
        for axis, f, o in zip(order, degradation.factors, degradation.offset, strict=True):
            factors[axis], offset[axis] = f, f - 1 - o if mirrored[axis] else o
        super().__init__(factors, offset)
        self.degradation = degradation
        self.order, self.mirrored = tuple(order), tuple(mirrored)

    @property
    def is_linear(self) -> bool:  # type: ignore[override]
        return self.degradation.is_linear

    def _turn(self, volume: Tensor) -> Tensor:
        lead = volume.ndim - 3
        volume = volume.flip([lead + axis for axis in range(3) if self.mirrored[axis]])
        return volume.permute(*range(lead), *(lead + axis for axis in self.order))

    def _turn_back(self, volume: Tensor) -> Tensor:
        lead = volume.ndim - 3
        volume = volume.permute(*range(lead), *(lead + self.order.index(axis) for axis in range(3)))
        return volume.flip([lead + axis for axis in range(3) if self.mirrored[axis]])

    def _degrade(self, hr: Tensor) -> Tensor:
        return self._turn_back(self.degradation(self._turn(hr)))

    def _adjoint(self, lr: Tensor) -> Tensor:
        return self._turn_back(self.degradation.adjoint(self._turn(lr)))

    def explain_nonlinearity(self) -> str:
        return self.degradation.explain_nonlinearity()
