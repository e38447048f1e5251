"""Who is trained on what."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from ..graph import TensorGraph
from ..losses import LossTable
from ..losses.table import ChangingWeight


class Schedule(Protocol):
    """Weights of a loss table that change with its terms."""

    def __getitem__(self, name: str) -> ChangingWeight:
        """The weight of this name, as it is at any time."""

    def step(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Look at the terms of an iteration, by name, and change the weights for the next."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""


class StepEpochs(torch.optim.lr_scheduler.StepLR):
    """A ``StepLR`` whose steps are epochs, where others of a :class:`Player` count iterations."""


class ConstantThenLinear(torch.optim.lr_scheduler.LambdaLR):
    """A learning rate that stays for half of the iterations, then falls to 0 along a line (Zhu et al. 2017).

    Args:
        optimizer: whose rate it is.
        iterations: of the training.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, iterations: int) -> None:
        super().__init__(optimizer, lambda i: min(1.0, max(0.0, 2 * (1 - i / iterations))))


class Player:
    """Who is trained on what: some networks of the graph, their optimizer and their losses.

    Args:
        networks: names of the networks in the graph that this player trains; default the one of the player's name.
        optimizer: called with the networks' parameters; in JSON an optimizer with ``"_mode_": "callable"``. Default
            Adam.
        losses: rows by name of a :class:`~common.losses.LossTable`.
        steps: optimizer steps an iteration.
        scheduler: called with the optimizer, and stepped once an iteration; in JSON with ``"_mode_": "callable"``. A
            ``ReduceLROnPlateau`` is stepped once an epoch, with the epoch's mean of the player's total loss, and so is
            a :class:`StepEpochs`.
        clip_norm: largest norm of the gradient, or None for no clipping.
        stop_below: learning rate below which the player has finished; the training ends when every player has. None
            for a player that goes on to the last epoch.
        schedule: of weights in ``losses``, which name them there, as ``["sparse", <loss>, "kernel"]``; it is stepped
            once an iteration with the player's terms.

    Raises:
        ValueError: when ``steps`` is less than 1, there are no networks, or a row of ``losses`` is wrong.
    """

    def __init__(
        self,
        networks: Sequence[str] | None = None,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = torch.optim.Adam,
        losses: Mapping[str, Sequence[Any] | None] | None = None,
        steps: int = 1,
        scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
        clip_norm: float | None = None,
        stop_below: float | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        if steps < 1 or networks == []:
            raise ValueError(f"a player needs networks and at least 1 step, got networks={networks}, steps={steps}.")
        self.networks = tuple(networks or ())
        self.losses = LossTable(losses if schedule is None else _scheduled(losses, schedule))
        self.steps = steps
        self.clip_norm = clip_norm
        self.stop_below = stop_below
        self.schedule = schedule
        self._optimizer = optimizer
        self._scheduler = scheduler

    def join(self, name: str, graph: TensorGraph, device: torch.device, fp16: bool) -> None:
        """Take the networks from the graph, make optimizer and scheduler, and check the losses' inputs."""
        self.networks = self.networks or (name,)
        for network in self.networks:
            if network not in graph.networks:
                known = ", ".join(graph.networks)
                raise ValueError(f"player '{name}': the graph has no network '{network}'; known: {known}.")
        for term, inputs in self.losses.inputs().items():
            graph.check_outputs(inputs, f"player '{name}', term '{term}'")
        self.losses.to(device)
        self.dependent = graph.depending_on(self.networks)
        self.parameters = [p for n in self.networks for p in graph.networks[n].parameters() if p.requires_grad]
        # Fused, an optimizer skips a step that overflowed without asking the device, which the host would wait for.
        fused = {"fused": True} if fp16 and "fused" in inspect.signature(self._optimizer).parameters else {}
        self.optimizer = self._optimizer(self.parameters, **fused)
        self.scheduler: Any = None if self._scheduler is None else self._scheduler(self.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=fp16)
        self._epoch_total, self._epoch_iterations = 0.0, 0

    @property
    def finished(self) -> bool:
        """Whether every learning rate has fallen below ``stop_below``."""
        groups = self.optimizer.param_groups
        return self.stop_below is not None and all(group["lr"] < self.stop_below for group in groups)

    def step_scheduler(self, total: float, epoch_ends: bool) -> None:
        """Step the scheduler, if there is one, after an iteration with this total loss."""
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self._epoch_total += total
            self._epoch_iterations += 1
            if epoch_ends:
                self.scheduler.step(self._epoch_total / self._epoch_iterations)
                self._epoch_total, self._epoch_iterations = 0.0, 0
        elif self.scheduler is not None and (epoch_ends or not isinstance(self.scheduler, StepEpochs)):
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """States of the optimizer, the schedules and the gradient scaler."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        if self.scheduler is not None:
            state["scheduler"] = self.scheduler.state_dict()
            state["epoch"] = (self._epoch_total, self._epoch_iterations)
        if self.schedule is not None:
            state["schedule"] = self.schedule.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any], prolonged: bool = False) -> None:
        """Restore what :meth:`state_dict` gave.

        Args:
            state: of the player.
            prolonged: whether the scheduler, made for a longer run than that of the state, is to go on as if it had
                been there from the start; else it goes on as in the state.
        """
        fused = [group.get("fused") for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        # The state may be that of a run in another precision.
        for group, own in zip(self.optimizer.param_groups, fused, strict=True):
            if "fused" in group:
                group["fused"] = own
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.scheduler is not None:
            if prolonged and not isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                self._replay_scheduler(state["scheduler"])
            else:
                self.scheduler.load_state_dict(state["scheduler"])
            self._epoch_total, self._epoch_iterations = state["epoch"]
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])

    def _replay_scheduler(self, state: Mapping[str, Any]) -> None:
        """Step the scheduler from the first iteration to that of the state: many depend on each step before."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self.scheduler.base_lrs = state["base_lrs"]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            for _ in range(state["last_epoch"]):
                self.scheduler.step()


def _scheduled(losses: Any, schedule: Schedule) -> dict[str, Any]:
    """Rows of a loss table with a schedule's weights in the place of their names."""
    named = {name for name, row in losses.items() if isinstance(row, Sequence) and row and isinstance(row[0], str)}
    return {name: [schedule[row[0]], *row[1:]] if name in named else row for name, row in losses.items()}
