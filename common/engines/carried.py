"""What every training carries: its folders, and the handlers that write to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
from monai.handlers import TensorBoardStatsHandler

from ..io.files import load_state
from ..weights import SavedWeights
from .validation import Validation


@dataclass(frozen=True)
class Folders:
    """Where a training, or one stage of it, writes.

    Attributes:
        output_dir: folder of the histories.
        ckpt_dir: folder of weights and states.
        stage: number from 1 or name of a stage; None for a training that has one.
    """

    output_dir: Path
    ckpt_dir: Path
    stage: int | str | None

    @property
    def suffix(self) -> str:
        """What the names of the stage's files end in."""
        return "" if self.stage is None else f"_{self.stage}"

    @property
    def history(self) -> Path:
        """Of the losses."""
        return self.output_dir / f"history{self.suffix}.jsonl"

    @property
    def state(self) -> Path:
        """To resume from."""
        return self.ckpt_dir / f"training_state{self.suffix}.pt"

    def later(self) -> list[Path]:
        """Weights and states of later stages, which build on this one."""
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
    """Refuse to begin a training where another one, or weights, would be lost.

    Args:
        output_dir: folder of the histories.
        ckpt_dir: folder of weights and states.
        resume: whether the run goes on from a state, and begins anew where there is none.
        overwrite: whether the run may take the place of what is there.
        stage: as for :class:`Folders`; or a pattern, of several.
        weights: whether the run begins model.pt anew, rather than from what an earlier stage has left there.

    Raises:
        FileExistsError: when a folder holds another run, or weights that belong to none.
        ValueError: when both ``resume`` and ``overwrite`` are true.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite are both true; a run is continued or begun anew, so give one of them.")
    folders = Folders(Path(output_dir), Path(ckpt_dir), stage)
    run = [path for own in (folders.history, folders.state) for path in sorted(own.parent.glob(own.name))]
    run += folders.later()
    model = [path for path in [Path(ckpt_dir, "model.pt")] if weights and path.is_file()]
    if overwrite or (resume and run) or not (run or model):
        return
    if resume:
        raise FileExistsError(
            f"{ckpt_dir} holds {model[0].name}, but no run that --resume True could continue, and this run would take "
            "its place. Name another --output_dir or --ckpt_dir, or give --overwrite True."
        )
    places = " and ".join(dict.fromkeys(str(path.parent) for path in run + model))
    raise FileExistsError(
        f"{places}: there is another run ({', '.join(path.name for path in run + model)}). Continue it with --resume "
        "True, name another --output_dir, or let this one take its place with --overwrite True."
    )


def amp_of_run(state: Path) -> bool | None:
    """Whether the networks of a run ran under autocast, by its state; None where there is no state, or it is silent."""
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
    """The handlers of a training, in the order in which they must act.

    Args:
        folders: of the run.
        saved: gives what writes the network's weights to files of these names; None for a training without such.
        validator: of the network, or None.
        interval: epochs between validations.
        keep: "best" or "last".
        initial: file of the weights that the training starts from, or None.
        resume: whether to go on from a state.
        minutes: between states.
        further: handlers of the config, which act before a state is saved.
        invalidates: files that build on this stage, besides those of later stages.

    Raises:
        ValueError: when ``keep`` is neither.
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
        tensorboard = [TensorBoardStatsHandler(log_dir=log_dir, tag_name="loss", output_transform=lambda out: out[0])]
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
