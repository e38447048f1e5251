"""A report of translations between MR and CT."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from ..data.loaders.through_plane import MULTIPLE
from ..data.loaders.volumes import VolumeCache
from ..degradations.base import Degradation
from ..reports.features import draw_translation


class TranslationReport:
    """Draws an MR image translated to CT and back, and a CT image translated to MR and back, after each epoch.

    The pictures are the middle planes, across the first axis, of the first volumes. The engine's graph has the steps
    "mr", "ct_fake", "mr_cycle", "mr_fake" and "ct_cycle", of the batch keys "lr", "hr", "prior_mr" and "prior_ct".

    Args:
        path: the PNG to write.
        source: CT volumes, key "hr", in [0, 1].
        target: thick-slice MR, key "lr", in [0, 1].
        degradation: makes slices thick.
        attributes: length of an attribute code.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        source: VolumeCache,
        target: VolumeCache,
        degradation: Degradation,
        attributes: int = 8,
    ) -> None:
        self.path = Path(path)
        self.degradation = degradation
        self.images = {"hr": self._cut_middle(source, "hr"), "lr": self._cut_middle(target, "lr")}
        self.affines = {
            "CT": source.affines[0]["hr"],
            "MR": np.asarray(degradation.compute_hr_affine(target.affines[0]["lr"])),
        }
        # The same code each time, so that pictures of two epochs can be compared.
        code = torch.randn(1, attributes, generator=torch.Generator().manual_seed(0))
        self.batch = {**self.images, "prior_mr": code, "prior_ct": code}

    @staticmethod
    def _cut_middle(volumes: VolumeCache, key: str) -> torch.Tensor:
        volume = volumes[0][key]
        height, width = (n // MULTIPLE * MULTIPLE for n in volume.shape[2:])
        return 2 * volume[:, volume.shape[1] // 2, :height, :width][None] - 1

    def attach(self, engine: Engine) -> None:
        """Draw when an epoch ends, in process 0 only."""
        if not dist.is_initialized() or dist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._draw)

    @torch.no_grad()
    def _draw(self, engine: Any) -> None:
        batch = {key: tensor.to(engine.state.device) for key, tensor in self.batch.items()}
        engine.graph.eval()
        values = engine.graph(batch, ["mr", "ct_fake", "mr_cycle", "mr_fake", "ct_cycle"])
        engine.graph.train()
        images = {key: tensor[0].float().cpu().numpy() for key, tensor in values.items() if tensor.ndim == 4}
        thick = np.repeat(images["lr"], self.degradation.factors[2], axis=-1)
        rows = {
            "MR": {"thick slices": thick, "SR": images["mr"], "as CT": images["ct_fake"], "back": images["mr_cycle"]},
            "CT": {"CT": images["hr"], "as MR": images["mr_fake"], "back": images["ct_cycle"]},
        }
        draw_translation(self.path, {name: (row, self.affines[name]) for name, row in rows.items()})
