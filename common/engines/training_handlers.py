"""Handlers of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from monai.engines import SupervisedEvaluator
from monai.handlers import TensorBoardStatsHandler
from torch import nn

from ..data.loaders.volumes import VolumeCache
from ..handlers.checkpoint import BestModel, LastModel, ResumableState
from ..handlers.history import LossHistory
from ..handlers.validation import ValidationWithInitial
from ..runtime.precision import apply_precision, unwrap_autocast
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
    engine: Any, network: nn.Module | None, folder: RunFolder, interval: int, keep: str, initial: Any, further: Sequence
) -> list:
    """Make the handlers of a training, in their order.

    Args:
        engine: that trains.
        network: whose weights are written, or None.
        folder: of the run.
        interval: epochs between validations.
        keep: "best" or "last".
        initial: file of the weights that the training starts from, or None.
        further: handlers of the config, which act before a state is saved.
    """
    if keep not in ("best", "last"):
        raise ValueError(f"keep is {keep!r}, expected best or last.")
    validator, last = engine.validator, None
    precision = str(engine.amp_kwargs["dtype"] if engine.amp else torch.float32).removeprefix("torch.")
    save = partial(folder.make_writer, precision=precision, zoom=getattr(engine.data_loader, "zoom", 1.0))
    handlers: list = [LossHistory(folder.history_file, validator)]
    best = keep == "best" and validator is not None
    if validator is not None:
        if network is not None and best:
            BestModel(save(unwrap_autocast(validator.network), ["model.pt"])).attach(validator)
        first = initial if best else None
        handlers.append(ValidationWithInitial(first, validator=validator, interval=interval, epoch_level=True))
    if network is not None:
        last = save(network, ["model_last.pt"])
        if not best:
            stage_files = [f"stage_{folder.stage}.pt"] if isinstance(folder.stage, int) else []
            handlers.append(LastModel(save(network, [*stage_files, "model.pt"])))
    state = ResumableState(
        folder.state_file,
        folder.resume,
        folder.save_minutes,
        validator,
        invalidates=[*folder.list_later_files(), *folder.invalidates],
        settings=folder.settings | ({} if last is None else last.sizes),
        last=last,
    )
    handlers += [*further, state]
    if not dist.is_initialized() or dist.get_rank() == 0:
        log_dir = str(folder.output_dir / "tensorboard" / folder.suffix[1:])
        handlers.append(TensorBoardStatsHandler(log_dir=log_dir, output_transform=lambda output: output[0]))
    return handlers
