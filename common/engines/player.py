"""Players: networks with their optimizer and losses."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from ..graph import TensorGraph
from ..losses.table import ChangingWeight, LossTable

# Options of an optimizer that need no state of their own, so a resumed run may switch them on.
_STATELESS = {"lr", "initial_lr", "weight_decay", "fused", "capturable", "foreach", "maximize", "differentiable"}
_SEEN = {"best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr"}  # by a ReduceLROnPlateau


class Schedule(Protocol):
    """Weights of a loss table that change with its terms, in place."""

    def __getitem__(self, name: str) -> ChangingWeight:
        """The current weight of this name."""

    def step(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Look at the terms of an iteration, by name, and change the weights for the next."""

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""


class ConstantThenLinear(torch.optim.lr_scheduler.LambdaLR):
    """A learning rate that is constant for half of the iterations, then falls linearly to 0 (Zhu et al. 2017).

    Args:
        optimizer: to schedule.
        iterations: of the training.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, iterations: int) -> None:
        super().__init__(optimizer, lambda i: min(1.0, max(0.0, 2 * (1 - i / iterations))))


class Player:
    """Some networks of the graph, with their optimizer and their losses.

    Args:
        networks: names of the networks in the graph that this player trains; default the network of the player's name.
        optimizer: called with the networks' parameters; in JSON an optimizer with ``"_mode_": "callable"``. Default
            Adam.
        losses: rows by name of a :class:`~common.losses.LossTable`.
        steps: optimizer steps per iteration.
        epoch_scheduler: called with the optimizer, and stepped once per epoch; in JSON with ``"_mode_": "callable"``. A
            ``ReduceLROnPlateau`` looks at the epoch's mean of the player's total loss.
        iteration_scheduler: the same, but stepped once per iteration; instead of ``epoch_scheduler``.
        clip_norm: largest norm of the gradient, or None for no clipping.
        stop_below: learning rate below which the player has finished. The training ends when every player has
            finished. None for a player that trains until the last epoch.
        schedule: of weights in ``losses``. Rows name such weights, as in ``["sparse", <loss>, "kernel"]``. It is
            stepped once per iteration with the player's terms.

    Raises:
        ValueError: if ``steps`` is less than 1, there are no networks, there are two schedulers or a
            ``ReduceLROnPlateau`` for iterations, or a row of ``losses`` is wrong.
    """

    def __init__(
        self,
        networks: Sequence[str] | None = None,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = torch.optim.Adam,
        losses: Mapping[str, Sequence[Any] | None] | None = None,
        steps: int = 1,
        epoch_scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
        iteration_scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
        clip_norm: float | None = None,
        stop_below: float | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        if steps < 1 or networks == []:
            raise ValueError(f"a player needs networks and at least 1 step, got networks={networks}, steps={steps}.")
        if epoch_scheduler is not None and iteration_scheduler is not None:
            raise ValueError(
                "a player has epoch_scheduler and iteration_scheduler, expected one; set the other to null."
            )
        self.networks = tuple(networks or ())
        self.losses = LossTable(losses if schedule is None else _insert_schedules(losses, schedule))
        self.steps = steps
        self.clip_norm = clip_norm
        self.stop_below = stop_below
        self.schedule = schedule
        self._optimizer = optimizer
        self._scheduler = iteration_scheduler if epoch_scheduler is None else epoch_scheduler
        self._counts_epochs = epoch_scheduler is not None

    def join_graph(self, name: str, graph: TensorGraph, device: torch.device, fp16: bool) -> None:
        """Take the networks from the graph, make optimizer and scheduler, and check the losses' inputs.

        Args:
            name: of the player.
            graph: with the networks.
            device: of the training.
            fp16: whether the loss is scaled.
        """
        self.networks = self.networks or (name,)
        for network in self.networks:
            if network not in graph.networks:
                known = ", ".join(graph.networks)
                raise ValueError(f"player '{name}': the graph has no network '{network}'; known: {known}.")
        for term, inputs in self.losses.list_inputs().items():
            graph.check_outputs(inputs, f"player '{name}', term '{term}'")
        self.losses.to(device)
        self.dependent = graph.find_dependent_steps(self.networks)
        # Sorted, because the order of summing gradients must not depend on a process's hashes.
        needed = sorted({tensor for inputs in self.losses.list_inputs().values() for tensor in inputs})
        self.order = graph.list_steps(needed)
        trained = [p for n in self.networks for p in graph.networks[n].parameters() if p.requires_grad]
        self.parameters = list(dict.fromkeys(trained))  # networks may share layers
        self.optimizer = self._optimizer(self.parameters, **self._choose_options(device, fp16))
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.scheduler: Any = None if self._scheduler is None else self._scheduler(self.optimizer)
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) and not self._counts_epochs:
            raise ValueError(f"player '{name}': ReduceLROnPlateau compares epochs; give it as epoch_scheduler.")
        self.scaler = torch.amp.GradScaler(device.type, enabled=fp16)
        self._epoch_total, self._epoch_iterations = 0.0, 0

    def _choose_options(self, device: torch.device, fp16: bool) -> dict[str, bool]:
        """Options of the optimizer that make it faster, unless the config has set them."""
        accepted, configured = inspect.signature(self._optimizer).parameters, getattr(self._optimizer, "keywords", {})
        # A fused optimizer is one kernel. It skips a step that overflowed on the device; others wait for the device.
        fused = (fp16 or device.type == "cuda") and not (configured.get("foreach") or configured.get("differentiable"))
        return {"fused": True} if fused and "fused" in accepted and "fused" not in configured else {}

    def get_learning_rate(self) -> float:
        """The learning rate of the next step, of the first group of parameters."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def is_finished(self) -> bool:
        """Whether every learning rate has fallen below ``stop_below``."""
        groups = self.optimizer.param_groups
        return self.stop_below is not None and all(group["lr"] < self.stop_below for group in groups)

    def add_total(self, total: float) -> None:
        """Add an iteration's total loss to the epoch's, for a scheduler that looks at its mean."""
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self._epoch_total += total
            self._epoch_iterations += 1

    def step_scheduler(self, epoch_ends: bool) -> None:
        """Step the scheduler, if there is one, after an iteration."""
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            if epoch_ends:
                self.scheduler.step(self._epoch_total / self._epoch_iterations)
                self._epoch_total, self._epoch_iterations = 0.0, 0
        elif self.scheduler is not None and (epoch_ends or not self._counts_epochs):
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """States of the optimizer, the schedules and the gradient scaler, and what they belong to."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        state["made_of"] = self._describe()
        if self.scheduler is not None:
            state["scheduler"] = self.scheduler.state_dict()
            state["epoch"] = (self._epoch_total, self._epoch_iterations)
        if self.schedule is not None:
            state["schedule"] = self.schedule.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any], iterations: int, epochs: int) -> None:
        """Restore what :meth:`state_dict` gave; learning rates and other options are those of this player.

        They are as if the run had had this player from the start. So a longer run, or another learning rate or
        scheduler, has its own rates from here on.

        Args:
            state: of the player.
            iterations: that the run has done.
            epochs: that the run has completed.

        Raises:
            ValueError: if the state is of another optimizer, of other networks, or of an optimizer that lacks what an
                option needs.
        """
        options = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        begun, now = state.get("made_of", {}), self._describe()
        for key in begun.keys() & now.keys() - {"rates"}:
            if begun[key] != now[key]:
                raise ValueError(f"its {key} was {begun[key]}, now it is {now[key]}")
        for group, saved in zip(options, state["optimizer"]["param_groups"], strict=True):
            for key in self.optimizer.defaults.keys() - _STATELESS:
                if group[key] and not saved.get(key):
                    raise ValueError(f"its optimizer had {key} {saved.get(key)}, now it is {group[key]}")
        self.optimizer.load_state_dict(state["optimizer"])
        for group, saved in zip(self.optimizer.param_groups, options, strict=True):
            group.update(saved)
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self._restore_plateau(state, begun.get("rates", now["rates"]))
        elif self.scheduler is not None:
            self._replay_scheduler(epochs if self._counts_epochs else iterations)
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])

    def _describe(self) -> dict[str, Any]:
        """What a state must have in common with a player; the learning rates as they were at the start."""
        kinds = {"optimizer": type(self.optimizer).__name__, "schedule": type(self.schedule).__name__}
        return {"networks": list(self.networks), **kinds, "rates": self._rates}

    def _restore_plateau(self, state: Mapping[str, Any], begun: Sequence[float]) -> None:
        """Restore what the scheduler has seen, and lower the learning rates as often as they were lowered."""
        seen = state.get("scheduler", {})
        if "best" in seen:
            self.scheduler.load_state_dict({key: seen[key] for key in _SEEN & seen.keys()})
            self._epoch_total, self._epoch_iterations = state["epoch"]
            groups = zip(self.optimizer.param_groups, state["optimizer"]["param_groups"], begun, strict=True)
            for group, saved, first in groups:
                group["lr"] = saved["lr"] if group["lr"] == first else group["lr"] * saved["lr"] / first

    def _replay_scheduler(self, steps: int) -> None:
        """Step the scheduler from the start: many schedulers depend on each earlier step."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            for _ in range(steps):
                self.scheduler.step()


def _insert_schedules(losses: Any, schedule: Schedule) -> dict[str, Any]:
    """Rows of a loss table, with a schedule's weights instead of their names."""
    named = {name for name, row in losses.items() if isinstance(row, Sequence) and row and isinstance(row[0], str)}
    return {name: [schedule[row[0]], *row[1:]] if name in named else row for name, row in losses.items()}
