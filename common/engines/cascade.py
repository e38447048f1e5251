"""Training of one stage of a cascade."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ..data.sets import Guided
from ..graph import TensorGraph
from ..inferers import CascadeInferer
from ..networks import Cascade
from ..weights import load
from .run_folder import RunFolder
from .trainer import AlternatingTrainer
from .validation import Validation


class CascadeStage(AlternatingTrainer):
    """Train one stage of a cascade on the results of the earlier stages, whose weights are in ``model.pt``.

    Args:
        stage: its number, from 1.
        network: the cascade; ``model.pt`` holds all its stages.
        data: the scans, with the method ``at_stage``.
        graph: the forward pass of a stage; the cascade stands for the stage's network.
        inferer: of the whole cascade.
        validator: called with ``data`` and ``inferer`` of the stage; in JSON a validation with ``"_mode_":
            "callable"``.
        folder: of the run.
        options: further arguments of :class:`AlternatingTrainer`.

    Raises:
        FileNotFoundError: if the weights of the earlier stages are missing.
        ValueError: if they do not fit, or if the data lack a stage of the cascade.
    """

    def __init__(
        self,
        stage: int,
        network: Cascade,
        data: Guided,
        graph: TensorGraph,
        inferer: CascadeInferer,
        validator: Callable[..., Validation],
        folder: RunFolder,
        **options: Any,
    ) -> None:
        data.at_stage(len(network.stages), network)  # refuses a cascade that is too long before its first stage
        before = network
        if stage > 1:
            path = folder.ckpt_dir / "model.pt"
            before = load(copy.deepcopy(network), path, data.device, degradation=data.degradation)
        data = data.at_stage(stage, before)
        steps = {output: [name, *inputs] for output, (name, inputs) in graph.steps.items()}
        networks = {name: network.stages[stage - 1] if n is network else n for name, n in graph.networks.items()}
        super().__init__(
            data=data,
            graph=TensorGraph(networks, steps, graph.batch_keys),
            network=network,
            validator=validator(data=data, inferer=inferer.only(stage)),
            folder=folder,
            stage=stage,
            **options,
        )
        # Last, because ``initial`` is loaded into all stages.
        for trained, kept in zip(before.stages[: stage - 1], network.stages, strict=False):
            kept.load_state_dict(trained.state_dict())
