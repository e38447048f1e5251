"""Sampling by residual-shift diffusion over the images of a volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer

from ..degradations.base import Degradation, remove_metadata
from ..degradations.interpolation import interpolate
from ..networks.diffusion import ResidualShift
from ..physics.scale import choose_zero_shot_images
from ..runtime.progress import track
from ..runtime.values import check_whole_numbers
from .consistent import ConsistentInferer
from .images import OrthogonalInferer


class ResidualShiftInferer(Inferer):
    """Draws HR volumes from noise and an LR volume, step by step, and gives their mean.

    The state is a volume. At each step the network predicts the HR volume from the images of the state across each axis
    whose images become finer. The mean over these directions is corrected to agree with the scan, and the state before
    the step is drawn. Noise is a volume too. It is drawn on the CPU, so one seed gives one result, up to rounding, on
    any device and with any number of threads.

    Args:
        shift: the diffusion.
        degradation: from HR to the scan, of factors [n, n, n], [n, n, 1] or [1, 1, n].
        seed: of the noise.
        samples: number of volumes that are drawn; the first ones do not depend on it.
        iterations: of :class:`ConsistentInferer`, at each step; 0 leaves the network's result unchanged.

    Attributes:
        spread: standard deviation over the samples of the last call in each voxel, of the size of its result; None with
            one sample.

    Source:
        Yue et al. 2023, eq. 6; Safari et al. 2025 sample single slices.
    """

    def __init__(
        self, shift: ResidualShift, degradation: Degradation, seed: int = 0, samples: int = 1, iterations: int = 1
    ) -> None:
        super().__init__()
        check_whole_numbers(samples=samples)
        self.shift, self.degradation, self.seed, self.samples = shift, degradation, seed, samples
        self.images = OrthogonalInferer(choose_zero_shot_images(list(degradation.factors))[0], keeps_size=True)
        self.consistent = ConsistentInferer(SimpleInferer(), degradation, iterations)
        self.spread: torch.Tensor | None = None

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """``(B, 1, X, Y, Z)`` to ``(B, 1, *hr)``, float32.

        The network maps images ``(b, 2, H, W)``, the state and the interpolation, and a step to ``(b, 1, H, W)``.
        """
        lr = remove_metadata(inputs)
        base = interpolate(lr, self.degradation).contiguous()
        generator = torch.Generator().manual_seed(self.seed)
        mean, squares = torch.zeros_like(base), torch.zeros_like(base)
        for i in track(range(self.samples)):
            sample = self._sample_patch(lr, base, generator, network, *args, **kwargs)
            # Welford's sums, because a difference of large squares is not exact.
            change = sample - mean
            mean += change / (i + 1)
            squares += change.mul_(sample - mean)
        self.spread = (squares / (self.samples - 1)).sqrt_() if self.samples > 1 else None
        return mean

    def _sample_patch(
        self, lr: torch.Tensor, base: torch.Tensor, generator: torch.Generator, network: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        def sample_noise() -> torch.Tensor:
            return torch.randn(base.shape, generator=generator).to(base)

        shift = self.shift.to(base.device)
        state = shift.start(base, sample_noise())
        for step in track(range(shift.steps)[::-1]):

            def predict(_: torch.Tensor, state: torch.Tensor = state, step: int = step) -> torch.Tensor:
                pair = torch.cat([state, base], dim=1)
                return torch.cat([self.images(one, network, step, *args, **kwargs) for one in pair.split(1)])

            hr = self.consistent(lr, predict)
            state = shift.go_back(state, hr, step, sample_noise() if step else hr)
        return state
