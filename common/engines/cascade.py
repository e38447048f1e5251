"""Training of a cascade, stage by stage."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..data.sets import Guided
from ..graph import TensorGraph
from ..inferers import CascadeInferer
from ..networks import Cascade
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
        data: the scans, with the method ``at_stage``, the device, and the folder of the histories,
            ``history_1.jsonl`` and so on.
        graph: the forward pass of a stage; the cascade stands for the stage's network.
        players: of a stage, by name.
        inferer: of the whole cascade.
        validator: called with ``data`` and ``inferer`` of a stage; in JSON a validation with ``"_mode_": "callable"``.
        folder: of the run.
        initial: file of the weights that all stages start from, or None.
        stages: number, or numbers, from 1, of the stages to train; None for all.
        options: of :class:`AlternatingTrainer`.

    Raises:
        ValueError: if the cascade or the data do not have a stage.
    """

    options_of = AlternatingTrainer

    def __init__(
        self,
        network: Cascade,
        data: Guided,
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
        data.at_stage(self.stages[-1], network)  # refuses a stage that the data do not have
        self.network, self.data, self.graph = network, data, graph
        self.players, self.inferer, self.validator = players, inferer, validator
        self.folder = folder
        self.options = {**options, "folder": folder, "initial": initial}
        self._first = {name: value.clone() for name, value in network.state_dict().items()}

    def run(self) -> None:
        """Train the stages."""
        for stage in self.stages:
            with torch.random.fork_rng([self.data.device] if torch.device(self.data.device).type == "cuda" else []):
                self.trainer(stage).run()

    def trainer(self, stage: int) -> AlternatingTrainer:
        """Make the trainer of one stage, counted from 1.

        Raises:
            FileNotFoundError, ValueError: if the weights of the earlier stages are missing, or do not fit.
            FileExistsError: if a folder holds another run.
        """
        before = self._before(stage)
        self.network.load_state_dict(self._first)
        data, own = self.data.at_stage(stage, before), self.network.stages[stage - 1]
        networks = {name: own if net is self.network else net for name, net in self.graph.networks.items()}
        trainer = AlternatingTrainer(
            data=data,
            graph=TensorGraph(
                networks,
                {out: [name, *inputs] for out, (name, inputs) in self.graph.steps.items()},
                self.graph.batch_keys,
            ),
            players=copy.deepcopy(dict(self.players)),
            network=self.network,
            validator=self.validator(data=data, inferer=self.inferer.only(stage)),
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
        path, degradation = self.folder.ckpt_dir / "model.pt", self.data.degradation
        return load(copy.deepcopy(self.network), path, self.data.device, degradation=degradation)
