"""The training target of one stage of a cascade."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import nn

from ..degradations.base import Degradation


class StageTargetd(MapTransform):
    """Use an LR scan, or the output of earlier stages, as HR for the training of a stage.

    Iwamoto et al. 2022, eq. 4 and section II-D. The output of the earlier stages is HR (key "hr"), and its degraded
    version is LR (key of the scan). HR and guide are cropped at their far ends to a size that fits the degradation.

    Args:
        keys: key of the LR scan ``(1, X, Y, Z)``; the guide is on the grid of the whole cascade's result.
        inferer: :class:`~common.inferers.CascadeInferer`, runs the whole cascade.
        network: the cascade, with the weights of the earlier stages.
        degradation: of a stage.
        device: where the network runs.
    """

    def __init__(
        self,
        keys: KeysCollection,
        inferer: Any,
        network: nn.Module,
        degradation: Degradation,
        device: torch.device | str,
    ) -> None:
        super().__init__(keys)
        self.whole, self.inferer = inferer, inferer.select_earlier_stages(1)
        self.network = network
        self.degradation = degradation
        self.device = device

    def select_stage(self, stage: int, network: nn.Module) -> None:
        """Make the target of another stage, counted from 1, by a cascade with the weights of the stages before it."""
        self.inferer, self.network = self.whole.select_earlier_stages(stage), network

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            self.network.to(self.device).eval()
            lr = torch.as_tensor(d[key])[None].to(self.device)
            guide = torch.as_tensor(d["guide"])[None].to(self.device) if "guide" in d else None
            hr = self.inferer(lr, self.network, guide)[0].cpu()
            lr_size = [math.floor(n / f) for n, f in zip(hr.shape[1:], self.degradation.factors, strict=True)]
            x, y, z = self.degradation.compute_hr_size(lr_size)
            if guide is not None:
                d["guide"] = self.inferer.resample_guide(guide, lr.shape, len(self.inferer.stages))[0].cpu()[
                    :, :x, :y, :z
                ]
            d["hr"] = hr[:, :x, :y, :z]
            d[key] = self.degradation(d["hr"])
        return d
