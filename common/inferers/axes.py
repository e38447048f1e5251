"""Run a slab inferer across several axes of a volume and of its mirror image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..degradations import Degradation
from ..runtime.progress import part
from ..values import is_true

_SPATIAL = (2, 3, 4)


class AxesInferer(Inferer):
    """Runs an inferer with each of several axes of a volume as the last, and averages the results.

    A slab network sees little along its last axis. If the factor is the same along every axis, slabs may run across any
    axis, and the mean of three results has seen every direction in plane. With ``mirrored`` the volume, mirrored along
    all axes, is super-resolved too. LR voxel i lies on HR voxel f i + o, but on f i + f - 1 - o in the mirror image, so
    its result is moved by f - 1 - 2 o voxels. Voxels that are then missing at the border are those of the other result.

    Args:
        inferer: runs the network over a volume, slab by slab along the last axis.
        axes: axes (0, 1, 2) of the volume that run across the slabs in turn; None for all with ``any_axis``, else 2.
        any_axis: whether the network accepts slabs across any axis.
        pass_axis: whether the network takes the axis as its second argument.
        mirrored: whether mirror images are averaged too.
        offset: o along each axis, as in the degradation; f - 1 - 2 o must be a whole number of at least 0.
        spread: whether to keep the standard deviation of the averaged results as :attr:`deviation`.
        degradation: linear, from a result to the scan. The scan measures the part of a result that it lets through. So
            the spread is computed without that part, of :math:`x - f_x f_y f_z A^T A x`.

    Attributes:
        deviation: standard deviation over the results of the last volume in each voxel, with the size of the result;
            None without ``spread``.
        complete: whether all possible axes and mirror images are used.

    Raises:
        ValueError: when ``axes`` are not distinct spatial axes, or ``spread`` is asked for a single result.
    """

    def __init__(
        self,
        inferer: Inferer,
        axes: Sequence[int] | None = None,
        any_axis: bool | str = True,
        pass_axis: bool = False,
        mirrored: bool | str = False,
        offset: Sequence[float] = (0.0, 0.0, 0.0),
        spread: bool | str = False,
        degradation: Degradation | None = None,
    ) -> None:
        super().__init__()
        every = (0, 1, 2) if is_true(any_axis, "any_axis") else (2,)
        self.axes = every if axes is None else tuple(axes)
        if not self.axes or len(set(self.axes)) != len(self.axes) or not set(self.axes) <= {0, 1, 2}:
            raise ValueError(f"AxesInferer: axes must be distinct spatial axes out of 0, 1, 2, got {axes}.")
        self.inferer = inferer
        self.pass_axis = pass_axis
        self.mirrored = is_true(mirrored, "mirrored")
        self.complete = self.mirrored and set(self.axes) == set(every)
        self.offset = tuple(offset)
        self.spread, self.degradation = is_true(spread, "spread"), degradation
        self.deviation: torch.Tensor | Any = None
        if self.spread and len(self.axes) * (1 + self.mirrored) < 2:
            raise ValueError(
                f"AxesInferer: uncertainty is the spread of several results, but axes {list(self.axes)} and mirrored "
                f"{self.mirrored} give one. Use more axes, or mirrored true."
            )

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """The mean of the inferer's results on ``(B, 1, X, Y, Z)``.

        Raises:
            ValueError: when a mirror image's result would have to be moved by a fraction of a voxel.
        """
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        total: Any = None
        count = 0
        moments = _Moments() if self.spread else None
        for copy in self._copies(volume, network, *args, **kwargs):
            if moments is not None:
                moments.add(self._unmeasured(copy))
            total = copy.contiguous() if total is None else total.add_(copy)
            count += 1
            del copy  # frees its memory before the next one
        if moments is not None:
            self.deviation = moments.deviation()
        return total if count == 1 else total.div_(count)

    def _unmeasured(self, result: torch.Tensor) -> torch.Tensor:
        if self.degradation is None:
            return result
        operator = self.degradation.to(result.device)
        return result - operator.adjoint(operator(result)).mul_(math.prod(operator.factors))

    def _copies(
        self, volume: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Iterator[torch.Tensor]:
        """Yield the results that are averaged."""
        count = len(self.axes) * (1 + self.mirrored)
        for i, axis in enumerate(self.axes):
            order = [0, 1, *(2 + a for a in range(3) if a != axis), 2 + axis]
            inverse = [order.index(j) for j in range(5)]
            passed = (axis,) if self.pass_axis else ()

            def run(some: torch.Tensor, order=order, inverse=inverse, passed=passed) -> torch.Tensor:
                result = self.inferer(some.permute(order).contiguous(), network, *passed, *args, **kwargs)
                return result.permute(inverse)

            with part(i * (1 + self.mirrored), count):
                result = run(volume)
            yield result.clone() if self.mirrored else result
            if self.mirrored:
                with part(2 * i + 1, count):
                    mirror_image = run(volume.flip(_SPATIAL)).flip(_SPATIAL)
                yield self._moved(mirror_image, volume.shape[2:], result)
                del mirror_image
            del result  # frees its memory before the next one

    def _moved(self, mirror_image: torch.Tensor, lr_size: Sequence[int], plain: torch.Tensor) -> torch.Tensor:
        """Move a mirror image's result, mirrored back, to its position in the volume, with the border of ``plain``."""
        steps = [n // k - 1 - 2 * o for n, k, o in zip(plain.shape[2:], lr_size, self.offset, strict=True)]
        if any(step < 0 or step != round(step) for step in steps):
            raise ValueError(
                f"mirrored moves results by whole voxels, but with offset {list(self.offset)} they must move by "
                f"{steps}. Leave mirrored out."
            )
        sizes = plain.shape[2:]
        there: Any = (..., *(slice(round(step), n) for step, n in zip(steps, sizes, strict=True)))
        here: Any = (..., *(slice(n - round(step)) for step, n in zip(steps, sizes, strict=True)))
        plain[here] = mirror_image[there]
        return plain


class _Moments:
    """Standard deviation of volumes that come one after the other (Welford's algorithm)."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, volume: torch.Tensor) -> None:
        self.count += 1
        if self.count == 1:
            self.mean, self.squares = volume.clone(), torch.zeros_like(volume)
            return
        apart = volume - self.mean
        self.mean += apart / self.count
        self.squares += apart.mul_(volume - self.mean)

    def deviation(self) -> torch.Tensor:
        return (self.squares / (self.count - 1)).sqrt_()
