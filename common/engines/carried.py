"""Folders of a training, and the handlers that write to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardStatsHandler

from ..io.files import load_state
from ..weights import SavedWeights
from .late_losses import LossEvents
from .validation import Validation


class _LossCurves(TensorBoardStatsHandler):
    """MONAI's handler, which writes losses when they were read, at the step of their iteration."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(LossEvents.LOSSES_READ, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def _default_iteration_writer(self, engine: Engine, writer: Any) -> None:
        for name, value in engine.state.output[0].items():  # type: ignore[index]
            writer.add_scalar(name, value, engine.state.losses_of)  # type: ignore[attr-defined]
        writer.flush()


@dataclass(frozen=True)
class Folders:
    """Folders and files of a training, or of one of its stages.

    Attributes:
        output_dir: folder of the histories.
        ckpt_dir: folder of weights and states.
        stage: number from 1, or name, of a stage; None for a training with one stage.
    """

    output_dir: Path
    ckpt_dir: Path
    stage: int | str | None

    @property
    def suffix(self) -> str:
        """Suffix of the names of the stage's files."""
        return "" if self.stage is None else f"_{self.stage}"

    @property
    def history(self) -> Path:
        """File of the losses."""
        return self.output_dir / f"history{self.suffix}.jsonl"

    @property
    def state(self) -> Path:
        """File to resume from."""
        return self.ckpt_dir / f"training_state{self.suffix}.pt"

    def later(self) -> list[Path]:
        """Weights and states of later stages, which depend on this one."""
        if not isinstance(self.stage, int):
            return []
        files = [*self.ckpt_dir.glob("training_state_*.pt"), *self.ckpt_dir.glob("stage_*.*")]
        return sorted(file for file in files if (n := file.stem.rpartition("_")[2]).isdigit() and int(n) > self.stage)


def check_new_run(
    output_dir: str | os.PathLike,
    ckpt_dir: str | os.PathLike,
    resume: bool,
    overwrite: bool,
    stage: int | str | None,
    weights: bool = True,
) -> None:
    """Refuse to begin a training that would overwrite another training or weights.

    Args:
        output_dir: folder of the histories.
        ckpt_dir: folder of weights and states.
        resume: whether to continue the run from a state, or begin a new run if there is none.
        overwrite: whether to replace an existing run.
        stage: as for :class:`Folders`; or a pattern for several stages.
        weights: whether the run writes a new model.pt, instead of continuing that of an earlier stage.

    Raises:
        FileExistsError: if a folder holds another run, or weights without a run.
        ValueError: if both ``resume`` and ``overwrite`` are true.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite are both true; give one: resume continues a run, overwrite replaces it.")
    folders = Folders(Path(output_dir), Path(ckpt_dir), stage)
    run = [path for own in (folders.history, folders.state) for path in sorted(own.parent.glob(own.name))]
    run += folders.later()
    model = [path for path in [Path(ckpt_dir, "model.pt")] if weights and path.is_file()]
    if overwrite or (resume and run) or not (run or model):
        return
    if resume:
        raise FileExistsError(
            f"{ckpt_dir} holds {model[0].name}, but no run that --resume True can continue. This run would overwrite "
            "it. Give another --output_dir or --ckpt_dir, or --overwrite True."
        )
    places = " and ".join(dict.fromkeys(str(path.parent) for path in run + model))
    raise FileExistsError(
        f"{places}: there is another run ({', '.join(path.name for path in run + model)}). Continue it with --resume "
        "True, give another --output_dir, or replace it with --overwrite True."
    )


def amp_of_run(state: Path) -> bool | None:
    """Whether a run uses autocast, by its state; None if there is no state, or the state does not say."""
    saved = load_state(state, "cpu") if state.is_file() else None
    return saved.get("amp") if isinstance(saved, dict) else None


def carried(
    folders: Folders,
    saved: Callable[..., SavedWeights] | None,
    validator: Validation | None,
    interval: int,
    keep: str,
    initial: str | os.PathLike | None,
    resume: bool,
    minutes: float | None,
    further: Sequence,
    invalidates: Sequence[str | os.PathLike] = (),
) -> list:
    """Make the handlers of a training, in their order.

    Args:
        folders: of the run.
        saved: makes the writer of the network's weights for these file names; None for a training without weights.
        validator: of the network, or None.
        interval: epochs between validations.
        keep: "best" or "last".
        initial: file of the weights that the training starts from, or None.
        resume: whether to continue from a state.
        minutes: between states.
        further: handlers of the config, which act before a state is saved.
        invalidates: files that depend on this stage, besides those of later stages.

    Raises:
        ValueError: if ``keep`` is neither.
    """
    from ..handlers import BestModel, Forecast, LastModel, LossHistory, ResumableState, ValidationWithInitial

    if keep not in ("best", "last"):
        raise ValueError(f"keep is {keep!r}, expected best or last.")
    handlers: list = [LossHistory(folders.history, validator)]
    best = keep == "best" and validator is not None
    if saved is not None and validator is not None and best:
        BestModel(saved("model.pt", of=validator.trained)).attach(validator)
    if validator is not None:
        handlers.append(
            ValidationWithInitial(initial if best else None, validator=validator, interval=interval, epoch_level=True)
        )
    if saved is not None and not best:
        own = [f"stage_{folders.stage}.pt"] if isinstance(folders.stage, int) else []
        handlers.append(LastModel(saved(*own, "model.pt")))
    name = "training" + folders.suffix.replace("_", " ")
    tensorboard = []
    if not dist.is_initialized() or dist.get_rank() == 0:
        log_dir = str(folders.output_dir / "tensorboard" / folders.suffix[1:])
        tensorboard = [_LossCurves(log_dir=log_dir)]
    return [
        *handlers,
        Forecast(name, str(folders.ckpt_dir), minutes, validator, interval),
        *further,
        ResumableState(
            folders.state,
            resume,
            minutes,
            validator,
            invalidates=[*folders.later(), *invalidates],
            settings=None if saved is None else saved().sizes,
            last=None if saved is None else saved("model_last.pt"),
        ),
        *tensorboard,
    ]
