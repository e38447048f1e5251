"""Handlers of a training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.distributed as dist
from monai.engines import SupervisedEvaluator
from monai.handlers import TensorBoardStatsHandler

from ..data.loaders.volumes import VolumeCache
from ..handlers.checkpoint import BestModel, LastModel, ResumableState
from ..handlers.history import LossHistory
from ..handlers.validation import ValidationWithInitial
from ..runtime.precision import apply_precision, unwrap_autocast
from ..weights.saving import SavedWeights
from .run_folder import RunFolder


def adapt_validator(validator: SupervisedEvaluator, amp: bool, amp_kwargs: Mapping[str, Any]) -> list:
    """Put an evaluator's volumes on its device, and run its network in the precision of the training.

    Args:
        validator: of the network.
        amp: whether the training uses autocast.
        amp_kwargs: of ``torch.autocast``.

    Returns:
        The handlers that are attached to it.
    """
    if isinstance(volumes := getattr(validator.data_loader, "dataset", None), VolumeCache):
        volumes.to(validator.state.device)
    network = unwrap_autocast(validator.network)  # an earlier stage may have adapted it
    validator.network = apply_precision(network, validator.state.device, amp, dict(amp_kwargs))
    return [handler for attached in validator._event_handlers.values() for handler, *_ in attached]


def make_training_handlers(
    folder: RunFolder,
    saved: Callable[..., SavedWeights] | None,
    validator: SupervisedEvaluator | None,
    interval: int,
    keep: str,
    initial: str | os.PathLike | None,
    minutes: float | None,
    further: Sequence,
    invalidates: Sequence[str | os.PathLike] = (),
) -> list:
    """Make the handlers of a training, in their order.

    Args:
        folder: of the run.
        saved: makes the writer of the network's weights for these file names; None for a training without weights.
        validator: of the network, or None.
        interval: epochs between validations.
        keep: "best" or "last".
        initial: file of the weights that the training starts from, or None.
        minutes: between states.
        further: handlers of the config, which act before a state is saved.
        invalidates: files that depend on this stage, besides those of later stages.
    """
    if keep not in ("best", "last"):
        raise ValueError(f"keep is {keep!r}, expected best or last.")
    handlers: list = [LossHistory(folder.history_file, validator)]
    best = keep == "best" and validator is not None
    if validator is not None:
        if saved is not None and best:
            BestModel(saved("model.pt", of=unwrap_autocast(validator.network))).attach(validator)
        first = initial if best else None
        handlers.append(ValidationWithInitial(first, validator=validator, interval=interval, epoch_level=True))
    if saved is not None and not best:
        stage_files = [f"stage_{folder.stage}.pt"] if isinstance(folder.stage, int) else []
        handlers.append(LastModel(saved(*stage_files, "model.pt")))
    tensorboard = []
    if not dist.is_initialized() or dist.get_rank() == 0:
        log_dir = str(folder.output_dir / "tensorboard" / folder.suffix[1:])
        tensorboard = [TensorBoardStatsHandler(log_dir=log_dir, output_transform=lambda output: output[0])]
    return [
        *handlers,
        *further,
        ResumableState(
            folder.state_file,
            folder.resume,
            minutes,
            validator,
            invalidates=[*folder.list_later_files(), *invalidates],
            settings=folder.settings | ({} if saved is None else saved().sizes),
            last=None if saved is None else saved("model_last.pt"),
        ),
        *tensorboard,
    ]
