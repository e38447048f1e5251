"""Training of one stage of a cascade."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.engines import SupervisedEvaluator

from ..data.loaders.volumes import VolumeCache
from ..graph import TensorGraph
from ..inferers.cascade import CascadeInferer
from ..networks.rdn import Cascade
from ..transforms.cascade_target import StageTargetd
from ..weights.loading import load_weights
from .run_folder import RunFolder
from .trainer import AlternatingTrainer


class CascadeStage(AlternatingTrainer):
    """Train one stage of a cascade on the results of the earlier stages, whose weights are in ``model.pt``.

    Args:
        stage: its number, from 1.
        network: the cascade; ``model.pt`` holds all its stages.
        datasets: the volumes for training and validation, which are read for each stage.
        target: the transform that makes them; None to learn from HR.
        device: to train on.
        graph: the forward pass of a stage; the cascade stands for the stage's network.
        inferer: of the whole cascade.
        validator: called with the ``inferer`` of the stage; in JSON an evaluator with ``"_mode_": "callable"``.
        run_folder: with ``model.pt``, and the degradation of the whole cascade.
        options: further arguments of :class:`AlternatingTrainer`.
    """

    def __init__(
        self,
        stage: int,
        network: Cascade,
        datasets: Sequence[VolumeCache],
        target: StageTargetd | None,
        device: torch.device,
        graph: TensorGraph,
        inferer: CascadeInferer,
        validator: Callable[..., SupervisedEvaluator],
        run_folder: RunFolder,
        **options: Any,
    ) -> None:
        if target is None and len(network.stages) > 1:
            raise ValueError(f"cascade is {len(network.stages)}, expected 1 for learning from HR: set --cascade 1.")
        before = network
        if stage > 1:
            saved, degradation = run_folder.ckpt_dir / "model.pt", run_folder.degradation
            before = load_weights(copy.deepcopy(network), saved, device, degradation=degradation)
        if target is not None:
            target.select_stage(stage, before)
        for dataset in datasets:
            dataset.forget()
        steps = {output: [name, *inputs] for output, (name, inputs) in graph.steps.items()}
        networks = {name: network.stages[stage - 1] if n is network else n for name, n in graph.networks.items()}
        super().__init__(
            device=device,
            graph=TensorGraph(networks, steps, graph.batch_keys),
            network=network,
            validator=validator(inferer=inferer.select_stage(stage)),
            run_folder=run_folder,
            stage=stage,
            **options,
        )
        # Last, because ``initial`` is loaded into all stages.
        for trained, kept in zip(before.stages[: stage - 1], network.stages, strict=False):
            kept.load_state_dict(trained.state_dict())
