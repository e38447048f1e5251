"""Validation during a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from torch import nn
from torch.utils.data import DataLoader

from ..data.loaders.cases import prepare_lr_hr
from ..runtime.precision import apply_precision
from ..values import parse_bool


class Validation(SupervisedEvaluator):
    """A ``SupervisedEvaluator`` of a trained network.

    Volumes are read in the first run. ``engine.state.output`` has "image", "label" and "pred" of each volume.

    Args:
        device: where the network runs.
        val_data_loader: of the volumes, "hr" and "lr", and optionally "guide".
        network: the trained network.
        inferer: runs the network on a volume.
        postprocessing: of "pred" of each volume, before it is measured.
        key_val_metric: metrics by name; the first one selects the best weights.
        val_handlers: further handlers with ``attach``.
        amp: whether the network runs under autocast; None for the training's setting.
        amp_kwargs: of ``torch.autocast``; default the training's.
    """

    data_loader: DataLoader

    def __init__(
        self,
        device: torch.device | str,
        val_data_loader: DataLoader,
        network: nn.Module,
        inferer: Callable,
        postprocessing: Callable | None = None,
        key_val_metric: dict[str, Any] | None = None,
        val_handlers: Sequence | None = None,
        amp: bool | str | None = None,
        amp_kwargs: dict | None = None,
    ) -> None:
        super().__init__(
            device=torch.device(device),
            val_data_loader=val_data_loader,
            epoch_length=1,  # until the volumes are read
            network=network,
            inferer=inferer,  # type: ignore[arg-type]
            prepare_batch=prepare_lr_hr,
            postprocessing=postprocessing,  # type: ignore[arg-type]
            key_val_metric=key_val_metric,
            val_handlers=val_handlers,
        )
        self.trained_network = network
        self.handlers = [*(val_handlers or ())]
        self.precision: tuple[bool | None, dict | None] = (None if amp is None else parse_bool(amp, "amp"), amp_kwargs)

    @property
    def has_volumes(self) -> bool:
        """Whether there is anything to validate with."""
        return len(self.data_loader) > 0

    def set_precision(self, amp: bool, amp_kwargs: dict) -> None:
        """Run the network in the precision of the training, if none was given."""
        precision, kwargs = self.precision
        self.precision = (amp if precision is None else precision), kwargs or amp_kwargs

    def load_volumes(self) -> None:
        """Read the volumes, unless they are already loaded."""
        if self.network is self.trained_network:
            _ = self.data_loader.dataset[0]
            self.state.epoch_length = len(self.data_loader)
            amp, kwargs = self.precision
            self.network = apply_precision(self.trained_network, self.state.device, amp, kwargs)

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Validate every volume of the group."""
        self.load_volumes()
        super().run(global_epoch)
