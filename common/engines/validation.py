"""Validation during a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import PeakSignalToNoiseRatio, from_engine
from torch import nn

from ..data.loaders.cases import prepare_lr_hr
from ..runtime.precision import in_precision
from ..values import is_true


class Validation(SupervisedEvaluator):
    """A ``SupervisedEvaluator`` of a network on the validation group: PSNR on whole volumes in [0, 1].

    The volumes are loaded in the first run. ``engine.state.output`` has "image", "label" and "pred" of each volume.

    Args:
        data: the sets of :mod:`common.data.sets`; their ``validation`` is used, on their ``device``.
        network: the trained network.
        inferer: runs the network on a volume.
        key_val_metric: metrics by name; the first one selects the best weights; default the PSNR.
        val_handlers: further handlers with ``attach``.
        amp: whether the network runs under autocast; None for the training's setting.
        amp_kwargs: of ``torch.autocast``; default the training's.
    """

    def __init__(
        self,
        data: Any,
        network: nn.Module,
        inferer: Callable,
        key_val_metric: dict[str, Any] | None = None,
        val_handlers: Sequence | None = None,
        amp: bool | str | None = None,
        amp_kwargs: dict | None = None,
    ) -> None:
        psnr = PeakSignalToNoiseRatio(max_val=1.0, output_transform=from_engine(["pred", "label"]))
        super().__init__(
            device=torch.device(data.device),
            val_data_loader=[],
            epoch_length=1,  # until the volumes are loaded
            network=network,
            inferer=inferer,  # type: ignore[arg-type]
            prepare_batch=prepare_lr_hr,
            key_val_metric=key_val_metric or {"psnr": psnr},
            val_handlers=val_handlers,
        )
        self.data, self.trained = data, network
        self.precision: tuple[bool | None, dict | None] = (None if amp is None else is_true(amp, "amp"), amp_kwargs)

    def follow(self, amp: bool, amp_kwargs: dict) -> None:
        """Run the network in the precision of the training, if none was given."""
        own, kwargs = self.precision
        self.precision = (amp if own is None else own), kwargs or amp_kwargs

    def load(self) -> None:
        """Read the volumes, unless they are already loaded."""
        if not self.data_loader:
            volumes = self.data.validation
            with torch.random.fork_rng(devices=[]):  # MONAI's loader would change the random state during training
                self.data_loader = DataLoader(volumes, batch_size=1)
            self.state.epoch_length = len(self.data_loader)
            amp, kwargs = self.precision
            self.network = in_precision(self.trained, self.state.device, amp, kwargs)

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Validate every volume of the group."""
        self.load()
        super().run(global_epoch)
