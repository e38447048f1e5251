"""Residual-shift diffusion: draws, the shifted image, and the network that predicts the HR image from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ..runtime.distributed import get_rank
from ..runtime.values import check_whole_numbers
from .float32 import FromImage


def _sample_share(draw: Callable[[int], torch.Tensor], count: int) -> torch.Tensor:
    """Draw for the samples of all processes, and return those of this one, so that their number changes nothing."""
    rank, world = get_rank()
    return draw(count * world)[rank * count : (rank + 1) * count]


class SampleNoise(nn.Module):
    """Standard normal noise for each pixel of a batch, as a step of a graph."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(B, ...)`` to noise of the same shape."""
        return _sample_share(lambda n: torch.randn((n, *images.shape[1:]), device=images.device), len(images))


class SampleStep(nn.Module):
    """A diffusion step for each image of a batch, each equally likely, as a step of a graph.

    Args:
        steps: number of diffusion steps.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(B, ...)`` to steps ``(B,)``, from 0 to ``steps - 1``."""
        return _sample_share(lambda n: torch.randint(self.steps, (n,), device=images.device), len(images))


class ResidualShift(nn.Module):
    r"""The diffusion from an HR image x to its interpolated LR image y, by a small number T of steps.

    After step t the image is

    .. math:: x_t = x + \eta_t (y - x) + \kappa \sqrt{\eta_t}\, \epsilon, \qquad \epsilon \sim N(0, 1).

    The root of the share :math:`\eta_t` grows from ``first`` to ``last``. Its logarithm is linear in
    ``((t - 1) / (T - 1)) ** power``. Schedulers of MONAI have no second image y; so this is no subclass.

    Args:
        steps: T, at least 1.
        kappa: standard deviation of the noise after the last step, above 0, in units of the images.
        first, last: root of the share after the first and the last step.
        power: below 1, shares grow fast at first.

    Source:
        Yue et al. 2023, eq. 1, 2, 7 and 10; Safari et al. 2025 use it for MRI, with four steps.
    """

    def __init__(
        self, steps: int = 4, kappa: float = 2.0, first: float = 0.001**0.5, last: float = 0.99, power: float = 0.3
    ) -> None:
        super().__init__()
        check_whole_numbers(steps=steps)
        if not kappa > 0:
            raise ValueError(f"kappa is {kappa!r}, expected a number above 0: the standard deviation of the noise.")
        self.steps, self.kappa = steps, kappa
        places = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.ones(1, dtype=torch.float64)
        root = first * (last / first) ** (places**power)
        self.shares = nn.Buffer(root.square().float(), persistent=False)

    def forward(self, hr: torch.Tensor, lr: torch.Tensor, step: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The shifted image, as a step of a graph.

        Args:
            hr, lr: x and y, ``(B, C, ...)``.
            step: ``(B,)``, t - 1.
            noise: standard normal, of the shape of ``hr``.
        """
        share = self.shares[step].view(-1, *[1] * (hr.ndim - 1))
        return torch.lerp(hr, lr, share) + self.kappa * share.sqrt() * noise

    def start(self, lr: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The image after the last step, if HR is not known: y stands for x."""
        return lr + self.kappa * self.shares[-1].sqrt() * noise

    def go_back(self, shifted: torch.Tensor, hr: torch.Tensor, step: int, noise: torch.Tensor) -> torch.Tensor:
        """Draw the image before a step, given the one after it and the predicted HR image (Yue et al. 2023, eq. 6).

        Args:
            shifted, hr: :math:`x_t` and the prediction of x, of one shape.
            step: t - 1; before the first step is the predicted image itself.
            noise: standard normal, of the shape of ``hr``.
        """
        if step == 0:
            return hr
        kept = self.shares[step - 1] / self.shares[step]
        deviation = self.kappa * (self.shares[step - 1] * (1 - kept)).sqrt()
        return torch.lerp(hr, shifted, kept) + deviation * noise


class StepUNet(nn.Module):
    """A U-Net of residual blocks without norms or attention, which knows the diffusion step.

    A vector per step is added to the features of each block; it starts at 0, as the last convolution of each block and
    of the network. Without norms and attention, a pixel's result does not depend on the size of the image. A level has
    half the resolution of the one before.

    Args:
        channels: features of each level.
        blocks: residual blocks of each level, on the way down and on the way up.
        steps: number of diffusion steps.
    """

    def __init__(self, channels: Sequence[int], blocks: int, steps: int) -> None:
        super().__init__()
        check_whole_numbers(blocks=blocks)
        self.head = FromImage(2, channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, features in enumerate(channels):
            above = channels[i - 1]
            halve = nn.Conv2d(above, features, 2, stride=2) if i else nn.Identity()
            double = nn.ConvTranspose2d(features, above, 2, stride=2) if i else nn.Identity()
            make = [[_StepBlock(features, steps) for _ in range(blocks)] for _ in range(2)]
            self.down.append(_Level(halve, make[0], nn.Identity()))
            self.up.insert(0, _Level(nn.Identity(), make[1], double))
        self.tail = nn.Conv2d(channels[0], 1, 3, padding=1)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Images ``(B, 2, H, W)`` and steps ``(B,)`` or ``(1,)`` to ``(B, 1, H, W)``.

        H and W are multiples of 2, 4, ... with 2, 3, ... levels.
        """
        x = self.head(images)
        skips: list[torch.Tensor] = []
        for level in self.down:
            x = level(x, step)
            skips.append(x)
        x = torch.zeros_like(x)
        for level in self.up:
            x = level(x + skips.pop(), step)
        return self.tail(x)


class _Level(nn.Module):
    """Blocks of one resolution, between layers from and to another."""

    def __init__(self, before: nn.Module, blocks: Sequence[nn.Module], after: nn.Module) -> None:
        super().__init__()
        self.before, self.blocks, self.after = before, nn.ModuleList(blocks), after

    def forward(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        for block in self.blocks:
            x = block(x, step)
        return self.after(x)


class _StepBlock(nn.Module):
    """Two 3x3 convolutions after SiLU, added to their input; the step's vector is added between."""

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.step = nn.Embedding(steps, features)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        for parameter in (self.step.weight, *self.second.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        h = self.first(F.silu(x)) + self.step(step)[:, :, None, None]
        return x + self.second(F.silu(h))


class ResidualDenoiser(nn.Module):
    r"""Predict the HR image from the shifted image and the interpolated LR image.

    .. math:: x = y + \kappa\, u\left((x_t - y) / \kappa, y, t\right)

    The network u so reads and writes numbers near 1, and at first the result is the interpolation.

    Args:
        unet: u, from images ``(B, 2, H, W)`` and steps ``(B,)`` to ``(B, 1, H, W)``; H and W are multiples of 8.
        shift: the diffusion, with kappa and the number of steps.
    """

    def __init__(self, unet: nn.Module, shift: ResidualShift) -> None:
        super().__init__()
        self.unet, self.kappa, self.steps = unet, float(shift.kappa), shift.steps

    def forward(self, images: torch.Tensor, step: torch.Tensor | int = 0) -> torch.Tensor:
        """Shifted and interpolated image, ``(B, 2, H, W)``, and t - 1, ``(B,)`` or one number, to ``(B, 1, H, W)``."""
        if isinstance(step, int):
            step = torch.full((1,), step, dtype=torch.long, device=images.device)
        height, width = images.shape[-2], images.shape[-1]
        lr = images[:, 1:]
        scaled = torch.cat([(images[:, :1] - lr) / self.kappa, lr], dim=1)
        scaled = F.pad(scaled, [0, -width % 8, 0, -height % 8], mode="replicate")
        return lr + self.kappa * self.unet(scaled, step)[..., :height, :width].float()
