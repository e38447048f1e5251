"""Networks that make thick slices thin, one for each factor."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..degradations.profiles import GaussianProfile
from ..networks.rdn import RDN
from ..networks.steps import SignedRange
from ..runtime.precision import Autocast
from ..weights.loading import load_weights, read_overlay


def make_thin_slice_network(factor: int, **sizes: Any) -> SignedRange:
    """The network that makes ``factor`` thin slices from each thick one: SRNet of Wang et al. 2023.

    ``sizes`` are further arguments of :class:`common.networks.RDN`.
    """
    return SignedRange(RDN(degradation=GaussianProfile((1, 1, factor)), **sizes))


class ThinSliceNetworks:
    """Networks for several factors, loaded when needed. The overlay of each weights file names its factor.

    Args:
        models: folder of weights, each with its overlay.
        network: function that makes the network of a factor, such as :func:`make_thin_slice_network`.
        device: where the networks run.

    Attributes:
        files: weights files by factor.
        ranges: training ranges by factor; None if unknown.
    """

    def __init__(
        self, models: str | os.PathLike, network: Callable[..., nn.Module], device: torch.device | str = "cpu"
    ) -> None:
        overlays = {path: read_overlay(path) for path in sorted(Path(models).glob("*.json"))}
        known = {path.with_suffix(".pt"): overlay for path, overlay in overlays.items() if overlay}
        self.files = {overlay["scale"][2]: path for path, overlay in known.items()}
        self.ranges = {overlay["scale"][2]: overlay.get("training_range") for overlay in known.values()}
        if not self.files:
            raise FileNotFoundError(f"{models} holds no weights; expected model.pt with model.json next to it.")
        self.network, self.device = network, device
        self.loaded: dict[int, nn.Module] = {}

    def select_network(self, ratio: float, template: nn.Module) -> tuple[int, nn.Module]:
        """The factor nearest to a ratio of slice thickness to the wanted thickness, and its network.

        ``template`` is the network that is already loaded, and is returned if it has that factor. Others run in its
        precision. Weights that do not fit their network are a ValueError.
        """
        factor = min(self.files, key=lambda known: abs(known - ratio))
        path = self.files[factor]
        if getattr(template, "origin", {}).get("path") == str(path):
            return factor, template
        if factor not in self.loaded:
            degradation = GaussianProfile((1, 1, factor))
            self.loaded[factor] = load_weights(self.network(factor), path, self.device, degradation=degradation)
        network = self.loaded[factor]
        return factor, Autocast(network, **template.autocast) if isinstance(template, Autocast) else network
