"""Weights that are trained a little further on the scan that they are to super-resolve."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import nn
from tqdm import tqdm

from ..data.loaders.slabs import AIR, draw_start
from ..degradations import Degradation, Interpolated
from ..progress import part, report

_HELD_OUT = 8  # of so many planes of the scan one
_TIMED = 20  # iterations


class AdaptedInferer(Inferer):
    """Trains a copy of the network on the planes of the scan, and runs an inferer with whichever of the two is better.

    The planes of a stack of thick slices are fine along both of their axes. Patches of them, thickened along one axis
    as the scanner thickens slices, are pairs of the scan's own contrast, noise and anatomy, and teach what is missing
    across the slices. Better is what has the smaller mean square error on the planes, every eighth, that no patch is
    cut from, so the result never rests on weights that do worse there than those that were given.

    Args:
        inferer: runs the network over a volume.
        degradation: thickens slices, along the last axis of an image alone; or what makes of an HR image the one that
            the network begins from (:class:`~common.degradations.Interpolated`).
        iterations: of training, 0 for none.
        batch_size: patches an iteration.
        lr_patch: size of a patch that was thickened, along the plane's other axis and along that one.
        learning_rate: of Adam at the beginning, from which it falls along a cosine.

    Attributes:
        said: what came of it for the last volume, for those who describe a result.

    Raises:
        ValueError: when ``iterations`` is negative or no whole number.

    Source:
        Zhao et al., SMORE: A Self-Supervised Anti-Aliasing and Super-Resolution Algorithm for MRI Using Deep Learning,
        IEEE TMI 2021, which trains on the scan alone, from nothing.
    """

    def __init__(
        self,
        inferer: Inferer,
        degradation: Degradation | Interpolated,
        iterations: int = 0,
        batch_size: int = 8,
        lr_patch: Sequence[int] = (48, 12),
        learning_rate: float = 1e-4,
    ) -> None:
        super().__init__()
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
            raise ValueError(f"adapt_iterations is {iterations!r}, expected a whole number, 0 or more.")
        self.inferer, self.degradation, self.iterations = inferer, degradation, iterations
        self.batch_size, self.lr_patch, self.learning_rate = batch_size, tuple(lr_patch), learning_rate
        self.said: dict[str, Any] = {}

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Super-resolve a batch of volumes.

        Args:
            inputs: ``(B, 1, X, Y, Z)``, slices along the last axis.
            network: a module that maps images ``(b, 1, H, Z)`` to ``(b, 1, H, factor Z)``; it stays as it is.
            args: further arguments of the inferer.
            kwargs: further keyword arguments of the inferer.

        Returns:
            As the inferer.

        Raises:
            TypeError: when the network is none that can be trained, as an exported one.
        """
        if not self.iterations:
            return self.inferer(inputs, network, *args, **kwargs)
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        with part(0, 2):
            network = self._better(volume.permute(0, 4, 1, 2, 3).flatten(0, 1), network)
        with part(1, 2):
            return self.inferer(inputs, network, *args, **kwargs)

    def _better(self, planes: torch.Tensor, network: Callable[..., Any]) -> nn.Module:
        """The network or its trained copy, by their errors on planes ``(n, 1, X, Y)`` that are held out."""
        if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
            raise TypeError(
                f"adapt_iterations is {self.iterations}, but a {type(network).__name__} cannot be trained; take the "
                "bundle's own weights (model.pt), or leave it out."
            )
        began = time.perf_counter()
        held = torch.zeros(len(planes), dtype=torch.bool)
        held[len(held) // 2 % _HELD_OUT :: _HELD_OUT] = True
        adapted = self._trained(planes[~held.to(planes.device)], copy.deepcopy(network))
        before, after = (self._error(planes[held.to(planes.device)], each) for each in (network, adapted))
        first, last = (round(float(-10 * np.log10(max(error, 1e-10))), 2) for error in (before, after))
        self.said = {"Iterations": self.iterations, "Psnr": first, "PsnrAdapted": last, "Used": after < before}
        tqdm.write(
            f"adapted in {time.perf_counter() - began:.0f} s: planes of the scan that it was not trained on, thickened "
            f"and made thin again, from {first:.2f} to {last:.2f} dB"
            + ("" if after < before else ", so the weights stay as they were")
        )
        return adapted if after < before else network

    def _trained(self, planes: torch.Tensor, network: nn.Module) -> nn.Module:
        """The network, trained on patches of planes ``(n, 1, X, Y)``."""
        rng = np.random.default_rng(0)
        tissue = (planes[:, 0] > AIR).cpu().numpy()
        optimizer = torch.optim.Adam(network.requires_grad_().parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.iterations)
        network.train()
        began = time.perf_counter()
        with torch.enable_grad():
            for i in range(self.iterations):
                hr = self._patches(planes, tissue, rng)
                loss = (network(self.degradation(hr)) - hr).abs().mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                report((i + 1) / self.iterations)
                if i + 1 == _TIMED < self.iterations:
                    seconds = (time.perf_counter() - began) / _TIMED * (self.iterations - _TIMED)
                    tqdm.write(f"training on the scan: about {seconds / 60:.1f} minutes more")
        return network.eval().requires_grad_(False)

    def _patches(self, planes: torch.Tensor, tissue: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Patches ``(b, 1, p, factor w)`` of planes, along either of their axes, mirrored at random."""
        factor = self.degradation.factors[-1]
        if rng.random() < 0.5:
            planes, tissue = planes.transpose(2, 3), tissue.transpose(0, 2, 1)
        height = min(self.lr_patch[0], planes.shape[2])
        width = min(factor * self.lr_patch[1], planes.shape[3] // factor * factor)
        patches = []
        for _ in range(self.batch_size):
            x, y, n = draw_start(tissue.transpose(1, 2, 0), (height, width, 1), rng)
            mirrored = [axis for axis in (1, 2) if rng.random() < 0.5]
            patches.append(planes[n, :, x : x + height, y : y + width].flip(mirrored))
        return torch.stack(patches)

    def _error(self, planes: torch.Tensor, network: nn.Module) -> float:
        """Mean square error on whole planes, thickened along either axis."""
        factor, total, count = self.degradation.factors[-1], 0.0, 0
        for plane in planes.split(1):
            for hr in (plane, plane.transpose(2, 3)):
                hr = hr[..., : hr.shape[-1] // factor * factor].contiguous()
                total += (network(self.degradation(hr)).float() - hr).square().sum().item()
                count += hr.numel()
        return total / count
