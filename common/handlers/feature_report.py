"""A report of the features that a training adapts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from ..data.loaders.slabs import UnpairedSlabLoader
from ..degradations.base import Degradation
from ..graph import TensorGraph
from ..io.files import load_state
from ..reports.features import draw_feature_maps, draw_feature_tsne


class FeatureReport:
    """Draws feature maps of both groups, and their distribution before and after adaptation.

    It attaches to an evaluator. When that has run, it draws if the training's state exists: ``features.png`` and
    ``tsne.png`` (Liu et al. 2023, fig. 4 and 5). Random encoders differ even without adaptation, so "before" is a
    training without it, lambda_5 = lambda_6 = 0. If none is given, its panel is left out.

    Args:
        output_dir: folder of the report.
        graph: of the training.
        source, target: the graph's steps with the features of a source slab and of a target slab.
        source_lr: the graph's step that degrades a source slab to LR.
        state: file of a :class:`~common.handlers.ResumableState`, with the trained networks.
        loader: makes the loader of the training. Its batches are embedded, and its first volumes are drawn.
        network, degradation: the trained network from LR to SR, and the degradation from HR to LR.
        batches: number of embedded batches.
        device: where the graph is computed.
        before: like ``state``, of the same training without adaptation; or None.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        graph: TensorGraph,
        source: str,
        target: str,
        source_lr: str,
        state: str | os.PathLike,
        loader: Callable[[], UnpairedSlabLoader],
        network: nn.Module,
        degradation: Degradation,
        batches: int,
        device: torch.device,
        before: str | os.PathLike | None = None,
    ) -> None:
        graph.check_outputs((source, target, source_lr), type(self).__name__)
        self.output_dir, self.state = Path(output_dir), Path(state)
        self.graph, self.source, self.target, self.source_lr = graph, source, target, source_lr
        self.make_loader, self.network, self.degradation = loader, network, degradation
        self.batches, self.device = batches, device
        self.before = None if before is None else Path(before)
        if self.before is not None:
            self._load_state(self.before)  # so that a bad file fails now, and not after all cases

    def attach(self, engine: Engine) -> None:
        """Draw at the end of the evaluator's run."""
        engine.add_event_handler(Events.COMPLETED, self._draw)

    @torch.no_grad()
    def _draw(self, engine: Engine) -> None:
        if not self.state.is_file():
            print(f"{self.state} is not there, so no feature maps are drawn")
            return
        self.loader = self.make_loader()
        panels = {}
        for title, state in (("before adaptation", self.before), ("after adaptation", self.state)):
            if state is not None:
                self._load_state(state)
                panels[title] = self._pool_features()
        draw_feature_tsne(self.output_dir / "tsne.png", panels)
        source, target = self._compute_planes()
        draw_feature_maps(self.output_dir / "features.png", source, target)
        print(f"feature maps and t-SNE are in {self.output_dir}")

    def _load_state(self, path: Path) -> None:
        state = load_state(path, self.device)
        try:
            self.graph.load_state_dict(state["graph"])
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{path}: not the state of a training of these networks ({reason}); expected the training_state.pt of "
                "the same configs and sizes."
            ) from None
        self.graph.to(self.device).eval()

    def _pool_features(self) -> tuple[np.ndarray, np.ndarray]:
        vectors: dict[str, list[torch.Tensor]] = {self.source: [], self.target: []}
        self.loader.set_iteration(0)
        for _, batch in zip(range(self.batches), self.loader, strict=False):
            values = self.graph(batch, list(vectors))
            for name, features in vectors.items():
                features.append(values[name].mean(dim=(2, 3)).float().cpu())
        return torch.cat(vectors[self.source]).numpy(), torch.cat(vectors[self.target]).numpy()

    def _compute_planes(self) -> tuple[dict, dict]:
        """The middle slab of the first source and of the first target volume, with its images and features."""
        slices, factors = self.loader.lr_patch[2], self.degradation.factors
        volume, lr = self.loader.source[0]["hr"], self.loader.target[0]["lr"]
        x, y = [n // f * f for n, f in zip(volume.shape[1:3], factors[:2], strict=True)]
        depth = slices * factors[2]
        z = (volume.shape[3] - depth) // 2
        hr = volume[None, :, :x, :y, z : z + depth]
        z = (lr.shape[3] - slices) // 2
        batch = {"hr": hr.to(self.device), "lr": lr[None, ..., z : z + slices].to(self.device)}
        values = self.graph(batch, [self.source, self.target, self.source_lr])
        sr = self.network(batch["lr"])

        def cut_plane(slab: torch.Tensor, index: int) -> np.ndarray:
            return slab[0, 0, ..., index].float().cpu().numpy()

        # The volumes have the axis order of the slabs. A plane is drawn along these axes, not the world's.
        centre = slices // 2
        fine = centre * factors[2] + math.floor(self.degradation.offset[2])
        source = {"image": cut_plane(hr, fine), "lr": cut_plane(values[self.source_lr], centre)}
        target = {"image": cut_plane(sr, fine), "lr": cut_plane(batch["lr"], centre)}
        for group, feature in ((source, self.source), (target, self.target)):
            group["features"] = values[feature][0].float().cpu().numpy()
            group["affine"] = np.eye(4)
        return source, target
