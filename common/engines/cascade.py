"""Training of a cascade, stage by stage."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..data import VolumeCache
from ..degradations import Degradation
from ..graph import TensorGraph
from ..inferers import CascadeInferer
from ..networks import Cascade
from ..transforms import StageTargetd
from ..weights import load
from .player import Player
from .run_folder import RunFolder
from .trainer import AlternatingTrainer
from .validation import Validation


class CascadeTrainer:
    """Train the stages of a cascade one after the other, each with its own :class:`AlternatingTrainer`.

    A stage learns from the results of the earlier stages with the weights in ``model.pt``. Each stage begins with the
    same random state and the cascade's first weights. So its result is the same if it is trained in a separate run.

    Args:
        network: the cascade; ``model.pt`` holds all its stages.
        datasets: the volumes for training and validation, which are read for each stage.
        target: the transform that makes them; None to learn from HR.
        device: to train on.
        degradation: from HR to LR, of the whole cascade.
        graph: the forward pass of a stage; the cascade stands for the stage's network.
        players: of a stage, by name.
        inferer: of the whole cascade.
        validator: called with the ``inferer`` of a stage; in JSON a validation with ``"_mode_": "callable"``.
        folder: of the run.
        initial: file of the weights that all stages start from, or None.
        stages: number, or numbers, from 1, of the stages to train; None for all.
        options: of :class:`AlternatingTrainer`.

    Raises:
        ValueError: if the cascade does not have a stage, or learns a later stage without a target.
    """

    options_of = AlternatingTrainer

    def __init__(
        self,
        network: Cascade,
        datasets: Sequence[VolumeCache],
        target: StageTargetd | None,
        device: torch.device,
        degradation: Degradation,
        graph: TensorGraph,
        players: Mapping[str, Player],
        inferer: CascadeInferer,
        validator: Callable[..., Validation],
        folder: RunFolder,
        initial: str | os.PathLike | None = None,
        stages: int | Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        known = range(1, len(network.stages) + 1)
        chosen = known if stages is None else [stages] if isinstance(stages, int) else stages
        if not chosen or not set(chosen) <= {*known}:
            raise ValueError(f'stages is {stages}, expected some of {[*known]}, for example --stages "[{known[-1]}]".')
        self.stages = sorted(set(chosen))
        if target is None and self.stages[-1] > 1:
            raise ValueError(f"stage is {self.stages[-1]}, expected at most 1 for learning from HR: set --cascade 1.")
        self.network, self.datasets, self.target, self.graph = network, datasets, target, graph
        self.device, self.degradation = torch.device(device), degradation
        self.players, self.inferer, self.validator = players, inferer, validator
        self.folder = folder
        self.options = {**options, "folder": folder, "initial": initial}
        self._first = {name: value.clone() for name, value in network.state_dict().items()}

    def run(self) -> None:
        """Train the stages."""
        for stage in self.stages:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                self.trainer(stage).run()

    def trainer(self, stage: int) -> AlternatingTrainer:
        """Make the trainer of one stage, counted from 1.

        Raises:
            FileNotFoundError, ValueError: if the weights of the earlier stages are missing, or do not fit.
            FileExistsError: if a folder holds another run.
        """
        before = self._before(stage)
        self.network.load_state_dict(self._first)
        if self.target is not None:
            self.target.select_stage(stage, before)
        for dataset in self.datasets:
            dataset.forget()
        own = self.network.stages[stage - 1]
        networks = {name: own if net is self.network else net for name, net in self.graph.networks.items()}
        trainer = AlternatingTrainer(
            device=self.device,
            degradation=self.degradation,
            graph=TensorGraph(
                networks,
                {out: [name, *inputs] for out, (name, inputs) in self.graph.steps.items()},
                self.graph.batch_keys,
            ),
            players=copy.deepcopy(dict(self.players)),
            network=self.network,
            validator=self.validator(inferer=self.inferer.only(stage)),
            stage=stage,
            **self.options,
        )
        # After the trainer, because that loads the initial weights of all stages.
        for trained, kept in zip(before.stages[: stage - 1], self.network.stages, strict=False):
            kept.load_state_dict(trained.state_dict())
        return trainer

    def _before(self, stage: int) -> Cascade:
        """The cascade with the weights of the earlier stages from ``model.pt``."""
        if stage == 1:
            return self.network
        path = self.folder.ckpt_dir / "model.pt"
        return load(copy.deepcopy(self.network), path, self.device, degradation=self.degradation)
