"""Estimation of degradation kernels, part by part."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.unknown_blur import UnknownBlur
from ..graph import TensorGraph
from ..handlers.kernel_report import KernelReport
from ..io.writing import check_writable
from ..weights.loading import load_weights
from .player import Player
from .run_folder import RunFolder
from .trainer import AlternatingTrainer


class KernelEstimation:
    """Estimate the kernels of LR scans part by part, each with its own networks.

    Objects that every part makes again are given as callables, in JSON with ``"_mode_": "callable"``. These are the
    graph, the players, the graph's networks with parameters per kernel, and the players' schedules. Such networks and
    schedules are called with ``kernels``, the number of kernels. An optimizer's ``eps`` is for one kernel. It is
    divided by the number of kernels, because losses are means over all kernels.

    Part 2 writes files such as ``history_kernels_2.jsonl``, ``training_state_kernels_2.pt`` and ``kernels_2.json``; see
    :class:`common.handlers.KernelReport`. A part that begins again removes the files that depend on it.

    Args:
        blur: its ``make_part_loaders`` are loaders of crops. It gives the device, the folder of the kernels, and the
            seed of each part's first weights.
        graph: makes the forward pass.
        players: by name; each makes a player.
        network: trained in the next stage, with the kernels.
        run_folder: where the run is written; the estimation ends after its ``minutes``.
        initial: file of the first weights of ``network``. It is checked before kernels are estimated.
        stage: name of the stage, at the start of the names of its parts.
        train_handlers: as for :class:`AlternatingTrainer`.
        as_trained: as for :class:`common.handlers.KernelReport`.
        invalidates: further files that depend on the kernels, such as the state of the next stage.
        options: further arguments of :class:`AlternatingTrainer`; the precision is always float32.
    """

    options_of = AlternatingTrainer

    def __init__(
        self,
        blur: UnknownBlur,
        graph: partial[TensorGraph],
        players: Mapping[str, partial[Player]],
        network: nn.Module,
        run_folder: RunFolder,
        initial: str | os.PathLike | None = None,
        stage: str = "kernels",
        train_handlers: Sequence = (),
        as_trained: bool = False,
        invalidates: Sequence[str | os.PathLike] = (),
        **options: Any,
    ) -> None:
        self.stage, self.blur, self.graph, self.players, self.network = stage, blur, graph, players, network
        self.folder, self.kernel_dir = copy.copy(run_folder), Path(blur.kernel_dir)
        check_writable(blur.kernel_dir)
        run_folder.select_stage("*").check_overwriting(writes_model=True)
        self.folder.overwrite = not run_folder.resume
        if initial is not None:
            load_weights(network, initial, blur.device, degradation=blur.degradation, option="initial")
        self.invalidates = [Path(file) for file in invalidates]
        self.device, self.train_handlers = torch.device(blur.device), train_handlers
        self.as_trained = as_trained
        self.options = {**options, "device": self.device, "amp": False}

    def run(self) -> None:
        """Estimate the kernels of all parts, or those that are missing, until the time is up."""
        for number, loader in enumerate(self.blur.make_part_loaders(), 1):
            if number > 1 and self.folder.time_limit.is_over(f"before part {number}"):
                return
            # Draws here must not change later draws.
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(self.blur.seed)
                graph, players = self.make_players(len(loader.cases))
                report = KernelReport(
                    self.kernel_dir / f"kernels_{number}.json",
                    graph.networks["generator"],  # type: ignore[arg-type]
                    loader,
                    self.blur.hr_spacing,
                    self.blur.factor,
                    self.blur.centre,
                    self.as_trained,
                )
                AlternatingTrainer(
                    train_data_loader=loader,
                    graph=graph,
                    players=players,
                    train_handlers=[*self.train_handlers, report],
                    run_folder=self.folder.select_stage(f"{self.stage}_{number}", self._list_dependent_files(number)),
                    **self.options,
                ).run()

    def make_players(self, kernels: int) -> tuple[TensorGraph, dict[str, Player]]:
        """Make graph and players for this number of kernels."""

        def set_size(part: Any) -> Any:
            return part if part is None or isinstance(part, nn.Module) else part(kernels=kernels)

        networks = self.graph.keywords["networks"]
        graph = self.graph(networks={name: set_size(network) for name, network in networks.items()})
        players = {}
        for name, player in self.players.items():
            options = {"schedule": set_size(player.keywords.get("schedule"))}
            optimizer: Any = player.keywords.get("optimizer")
            if "eps" in getattr(optimizer, "keywords", {}):
                options["optimizer"] = partial(optimizer, eps=optimizer.keywords["eps"] / kernels)
            players[name] = player(**options)
        return graph, players

    def _list_dependent_files(self, number: int) -> list[Path]:
        """Files that are not valid any more if a part begins again."""
        states = [
            file
            for file in self.folder.ckpt_dir.glob(f"training_state_{self.stage}_*.pt")
            if _read_number(file) > number
        ]
        kernels = [file for file in self.kernel_dir.glob("kernels_*.json") if _read_number(file) >= number]
        return [*states, *kernels, *self.invalidates]


def _read_number(file: Path) -> int:
    """The number at the end of a file's name; 0 if there is none."""
    number = file.stem.rpartition("_")[2]
    return int(number) if number.isdigit() else 0
