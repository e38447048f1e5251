"""Checkpoints that are written whole or not at all, and the exact continuation of a run."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from ..io.files import load_state
from ..io.writing import write_atomically
from ..runtime import threads
from ..weights.loading import STATE
from ..weights.saving import SavedWeights


def _is_first() -> bool:
    """Whether this is process 0, which writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


class BestModel:
    """Keeps the weights with the best validation: the evaluator's first key metric decides, larger is better.

    Args:
        saved: writes the weights.
    """

    def __init__(self, saved: SavedWeights) -> None:
        self.saved = saved

    def attach(self, engine: Engine) -> None:
        """Look at the metric after each validation."""
        engine.add_event_handler(Events.STARTED, self._remember)
        engine.add_event_handler(Events.COMPLETED, self._save_if_best)

    def _remember(self, engine: Any) -> None:
        self.is_first = engine.state.best_metric_epoch < 0

    def _save_if_best(self, engine: Any) -> None:
        state = engine.state
        # If a training starts from weights, the first epoch also has a validation before it.
        best = state.best_metric_epoch == state.epoch and state.metrics[state.key_metric_name] == state.best_metric
        if best and _is_first():
            self.saved.save(**get_validation(engine))
            # MONAI has just logged a new best metric.
            if self.is_first and (trained := getattr(engine.state, "trained", None)) is not None:
                when = f"after iteration {trained}" if trained else "of the initial weights"
                engine.logger.info(f"this is the first validation, {when}: there is nothing to compare it with yet")


class LastModel:
    """Keeps a network's weights as they are at the end of the latest epoch, if no metric shows the best epoch.

    The weights of a method without HR must not be chosen by known HR.

    Args:
        saved: writes the weights.
    """

    def __init__(self, saved: SavedWeights) -> None:
        self.saved = saved

    def attach(self, engine: Engine) -> None:
        """Save when an epoch ends, in process 0 only."""
        if _is_first():
            engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: self.saved.save(engine.state.iteration))


def get_validation(evaluator: Engine) -> dict[str, Any]:
    """The iteration that the latest validation measured (None if the evaluator has none), and its metrics."""
    metrics = {name: round(float(value), 4) for name, value in evaluator.state.metrics.items()}
    return {"iteration": getattr(evaluator.state, "trained", None), **metrics}


class ResumableState:
    """Saves the whole state of a run, and restores it when the run starts.

    The state is networks, players, epoch, iteration and the evaluator's best metric; the number of threads and the
    precision, which affect rounding; and the random states of Python, NumPy and torch. A run may continue with more or
    fewer GPUs, and with other data, losses, learning rates and schedulers. The state is saved at the end of each epoch,
    by the clock within an epoch, and when the run is interrupted. Place this handler after the validation, so that a
    saved epoch has been validated.

    With each state the current weights are written to a separate file. A larger ``max_epochs`` prolongs a run. From
    there on the learning rates are those of a run that had this length, and these rates, from the start.

    Args:
        path: of the file.
        resume: whether to continue from an existing file; if not, the run begins anew.
        minutes: between saves within an epoch, 0 or more; 0 saves each iteration, None does not save by the clock.
        evaluator: whose best metric is saved too, or None.
        invalidates: states of stages that build on this one. They are removed when a run begins anew or is prolonged.
        settings: of the networks' weights and the folder; a run continues only with the same settings.
        last: of the network whose weights are written with each state, or None.

    Raises:
        ValueError: at the start of the run, when the file is corrupt or of another configuration.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        resume: bool = False,
        minutes: float | None = 5,
        evaluator: Engine | None = None,
        invalidates: Sequence[str | os.PathLike] = (),
        settings: Mapping[str, Any] | None = None,
        last: SavedWeights | None = None,
    ) -> None:
        self.path, self.resume, self.minutes = Path(path), resume, minutes
        self.evaluator: Any = evaluator
        self.invalidates = [Path(file) for file in invalidates]
        self.settings = json.loads(json.dumps(settings or {}))  # lists for tuples, as they are compared
        self.last = last

    def attach(self, engine: Engine) -> None:
        """Restore in all processes when the engine starts; save in the first process while it runs."""
        engine.add_event_handler(Events.STARTED, self._restore)
        if _is_first():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._save_within_epoch)

    def _save_within_epoch(self, engine: Any) -> None:
        # The last iteration is saved after its validation, with the epoch.
        due = self.minutes is not None and time.monotonic() - self.saved >= 60 * self.minutes
        if (due or engine.interrupted) and engine.state.iteration % engine.state.epoch_length:
            self._save(engine)

    def _save(self, engine: Any) -> None:
        device = engine.state.device
        algorithm, keys, *rest = np.random.get_state()
        state = {
            "iteration": engine.state.iteration,
            "max_epochs": engine.state.max_epochs,
            "epoch_length": engine.state.epoch_length,
            "threads": torch.get_num_threads(),
            "amp": engine.amp,
            "settings": self.settings,
            "graph": engine.graph.state_dict(),
            "players": {name: player.state_dict() for name, player in engine.players.items()},
            "random": {
                "python": random.getstate(),
                "numpy": (algorithm, torch.from_numpy(np.asarray(keys, np.int64)), *rest),
                "torch": torch.get_rng_state(),
                "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
            },
        }
        if self.evaluator is not None:
            state["best"] = (self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch)
        if self.last is not None:
            looked_at = {} if self.evaluator is None else get_validation(self.evaluator)
            now = {"iteration": engine.state.iteration}
            self.last.save(**(looked_at if looked_at.items() >= now.items() else now))
        with write_atomically(self.path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
            os.fsync(file.fileno())
        self.saved = time.monotonic()

    def _restore(self, engine: Any) -> None:
        self.saved = time.monotonic()
        if engine.state.iteration:
            return  # this process goes on, as in federated learning
        if not self.resume or not self.path.is_file():
            # Otherwise a later --resume would use the state of an earlier run.
            self._remove(self.path, *self.invalidates)
            return
        # To the CPU; an optimizer moves its step counts to the GPU if it reads them there.
        state = load_state(self.path, "cpu")
        expected = STATE | ({"best"} if self.evaluator is not None else set())
        if not isinstance(state, dict) or not expected <= state.keys():
            raise ValueError(f"{self.path}: not the state of a run like this one; start anew with --overwrite True.")
        lengths = {key: getattr(engine.state, key) for key in ("epoch_length", "max_epochs")}
        begun, now = state["settings"] | {key: state[key] for key in lengths}, self.settings | lengths
        prolonged = now["max_epochs"] > begun["max_epochs"]
        for key in begun | now:
            if begun.get(key) != now.get(key) and not (prolonged and key == "max_epochs"):
                raise ValueError(
                    f"{self.path}: the run was started with {key} {begun.get(key, 'unknown to it')}, now it is "
                    f"{now.get(key, 'unknown')}. {self._advise()}"
                )
        epoch, what = state["iteration"] // engine.state.epoch_length, "the graph"
        try:
            if list(state["players"]) != list(engine.players):
                raise ValueError(f"players {list(state['players'])} instead of {list(engine.players)}")
            engine.graph.load_state_dict(state["graph"])
            for name, player in engine.players.items():
                what = f"player {name}"
                player.load_state_dict(state["players"][name], state["iteration"], epoch)
        except (KeyError, RuntimeError, ValueError) as error:
            # torch's message has the module in its first line, and the reason after it.
            reason = next(line.strip() for line in str(error).splitlines() if not line.endswith(":"))
            raise ValueError(
                f"{self.path}: the run was started with other networks or players ({what}: {reason}). {self._advise()}"
            ) from None
        if prolonged and not all(player.is_finished for player in engine.players.values()):
            # A run whose players have finished ends at once when it is prolonged. Stages that build on it stay valid.
            self._remove(*self.invalidates)
        engine.state.iteration = state["iteration"]
        engine.state.epoch = epoch
        if self.evaluator is not None:
            self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = state["best"]
        threads.restore_threads(state["threads"])
        saved = state["random"]
        random.setstate(saved["python"])
        algorithm, keys, *rest = saved["numpy"]
        np.random.set_state((algorithm, keys.numpy(), *rest))
        torch.set_rng_state(saved["torch"])
        if saved["cuda"] and engine.state.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda"][0], engine.state.device)
        engine.logger.info(f"continuing after iteration {engine.state.iteration} of {self.path}")

    def _advise(self) -> str:
        initial = "" if self.last is None else f"--initial {self.last.paths[0]} and "
        return (
            f"Continue with the same settings, begin a run with {initial}another --output_dir, or start anew with "
            "--overwrite True."
        )

    @staticmethod
    def _remove(*files: Path) -> None:
        for file in files if _is_first() else ():
            file.unlink(missing_ok=True)
