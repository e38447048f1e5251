"""Whether a network that was trained on a scan should be used, by images of the scan that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..data.loaders.image_pairs import ImagePairs
from ..data.loaders.slabs import AIR
from ..runtime.progress import hold_bar
from ..runtime.threads import use_one_thread
from .images import run_in_pieces

_LOOKED_AT = 2**18, 4  # most pixels of a stack that are checked, but at least so many images
_ORDINARY = (0.5, 1.3)  # range of ordinary tissue, relative to its median
_BRIGHTER = 0.1  # least overshoot that counts, relative to the same median
_FEWEST = 0.005  # share of tissue; less overshoot is accepted
_INVENTS = 2  # times the overshoot in planes that is accepted; real volumes that were thickened here had 0.6 to 1.6


class HeldOutCheck:
    """Whether a trained copy of a network is better than what it would replace, by images that it was not trained on.

    Args:
        held: planes that are held out.
        across: images of the scan across its slices, each stack ``(n, 1, H, Z)``, to look for rims; may be empty.
        starts: networks that the copy would replace.

    Attributes:
        best: index of the start with the smallest error on ``held``.
        report: figures of the last check.
    """

    def __init__(self, held: Sequence[ImagePairs], across: Sequence[torch.Tensor], starts: Sequence[nn.Module]) -> None:
        self.held, self.across, self.stacks = held, across, [each.lr for each in held]
        errors = [_compute_error(held, _apply_network(start, self.stacks)) for start in starts]
        self.best = int(np.argmin(errors))
        self.error = errors[self.best]
        self.report: dict[str, float] = {}
        if across:
            self.tissue = torch.cat([images[images > AIR] for images in across]).median()
            self.original = _measure_overshoot(across, _apply_network(starts[0], across), self.tissue)

    def find_reason(self, network: nn.Module) -> str:
        """Why the network should not be used; empty if it should."""
        in_plane = _apply_network(network, self.stacks)
        error = _compute_error(self.held, in_plane)
        self.report = {"Psnr": _compute_psnr(self.error), "PsnrAdapted": _compute_psnr(error)}
        if not error < self.error:
            return "it did worse on planes of the scan that were held out"
        if self.across:
            overshoot_in_plane = _measure_overshoot(self.stacks, in_plane, self.tissue)
            overshoot = _measure_overshoot(self.across, _apply_network(network, self.across), self.tissue)
            self.report |= {"Overshoot": round(overshoot, 5), "OvershootInPlane": round(overshoot_in_plane, 5)}
            self.report["OvershootOriginal"] = round(self.original, 5)
            accepted = max(_INVENTS * overshoot_in_plane, _FEWEST)
            if overshoot > max(accepted, self.original):
                original = f"{self.original:.2%} with the original weights"
                if self.original > accepted:  # what replaces the copy draws them too
                    original += ", which draw rims too"
                return f"rims that the scan does not show, in {overshoot:.2%} of ordinary tissue, {original}"
        return ""


def _apply_network(network: nn.Module, stacks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What a network makes of the images of each stack ``(n, 1, H, W)``."""
    with hold_bar():
        return [torch.cat([*run_in_pieces(network, stack.split(1))]) for stack in stacks]


def _compute_error(examples: Sequence[ImagePairs], results: Sequence[torch.Tensor]) -> float:
    """Mean square error of the SR images."""
    with use_one_thread():
        total = sum((sr - each.hr).square().sum().item() for sr, each in zip(results, examples, strict=True))
    return total / sum(each.hr.numel() for each in examples)


def _compute_psnr(error: float) -> float:
    """PSNR in dB of a mean square error, of images in [0, 1], to two decimals."""
    return round(float(-10 * np.log10(max(error, 1e-10))), 2)


def select_evenly(images: torch.Tensor) -> torch.Tensor:
    """Evenly spaced images of a stack ``(n, 1, H, W)``, few enough to check them quickly."""
    pixels, fewest = _LOOKED_AT
    most = max(pixels // images[0].numel(), fewest)
    step = -(-len(images) // most)
    return images[step // 2 :: step]


def _measure_overshoot(stacks: Sequence[torch.Tensor], results: Sequence[torch.Tensor], tissue: torch.Tensor) -> float:
    """Share of ordinary tissue (no dark or bright surroundings) brighter than all 5 x 3 LR pixels around it."""
    brighter = ordinary = torch.zeros((), dtype=torch.long, device=tissue.device)
    for lr, sr in zip(stacks, results, strict=True):
        column = torch.arange(sr.shape[3], device=lr.device) * lr.shape[3] // sr.shape[3]
        most = F.max_pool2d(lr, (5, 3), 1, (2, 1)).index_select(3, column)
        counted = (most > _ORDINARY[0] * tissue) & (most < _ORDINARY[1] * tissue)
        brighter = brighter + (counted & (sr > most + _BRIGHTER * tissue)).sum()
        ordinary = ordinary + counted.sum()
    return (brighter / ordinary.clamp_min(1)).item()
