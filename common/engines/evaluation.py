"""Evaluation of weights against known HR."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, CopyItemsd
from torch import nn

from ..data.batches import prepare_lr_hr
from ..data.description import describe_result
from ..data.lists.groups import Group
from ..data.loaders.volumes import try_each
from ..degradations.base import Degradation
from ..reports.evaluated import match_hr
from ..runtime.precision import choose_precision
from ..transforms.scan.save import SaveVolumed
from ..transforms.scan.volume import RestoreVolumed
from ..weights.loading import load_weights, read_overlay
from ..weights.task import describe_task, find_config, name_network


class Evaluation(SupervisedEvaluator):
    """A ``SupervisedEvaluator`` of scans whose HR is known. It writes each result, and a report.

    Args:
        device: where the network runs.
        data: entries with "hr", and possibly "lr" and "guide".
        preprocessing: reads an entry's volumes, and makes "lr" of HR where there is none.
        network: to be evaluated.
        inferer: runs the network on a volume.
        degradation: from HR to LR.
        slice_axis: as for :func:`common.geometry.affines.find_slice_permutation`.
        output_dir: folder of the results and the report.
        bundle_root: folder of the bundle.
        report: makes the report, called with ``output_dir``, ``degradation``, ``network``, ``prepare``, ``shipped`` and
            ``task``; in JSON a :class:`common.handlers.EvaluationReport` with ``"_mode_": "callable"``.
        checkpoint: file of the network's weights; None to leave the network as it is.
        digest: digest of their tensors; None if it is not known.
        prepare: makes of the network with its weights the equal one that runs; default the same.
        shipped: finds weights to compare with, called with data, degradation, slice axis, checkpoint and device;
            None for none. It is not called for simulated heads.
        amp: as for :func:`common.runtime.precision.choose_autocast`.
        val_handlers: further handlers with ``attach``.
        options: further arguments of ``SupervisedEvaluator``.

    Raises:
        FileNotFoundError, ValueError: as :func:`common.weights.loading.load_weights`; or, before anything is computed,
            when volumes cannot be used.
    """

    def __init__(
        self,
        device: torch.device | str,
        data: Sequence[Mapping[str, Any]],
        preprocessing: Callable,
        network: nn.Module,
        inferer: Any,
        degradation: Degradation,
        slice_axis: str,
        output_dir: str | os.PathLike,
        bundle_root: str | os.PathLike,
        report: Callable[..., Any],
        checkpoint: str | os.PathLike | None = None,
        digest: str | None = None,
        prepare: Callable[[nn.Module], nn.Module] = lambda network: network,
        shipped: Callable[..., Mapping[str, Mapping]] | None = None,
        amp: bool | None = None,
        val_handlers: Sequence = (),
        **options: Any,
    ) -> None:
        self.degradation = degradation
        others: Mapping[str, Mapping] = {}
        if shipped is not None and not (isinstance(data, Group) and data.datalist.is_simulated):
            others = shipped(data, degradation, slice_axis, checkpoint, device)
        config, overlay = find_config(), None if checkpoint is None else read_overlay(checkpoint)
        task = [] if config is None else describe_task(config, overlay or {}, degradation.factors, degradation.offset)
        known = {
            "task": task,
            "output_dir": output_dir,
            "degradation": degradation,
            "network": network,
            "prepare": prepare,
        }
        if config is not None and (method := name_network(config, bundle_root)):
            known["method"] = method
        restore = RestoreVolumed("sr", degradation=degradation)
        save = SaveVolumed("sr", output_dir, description=describe_result(bundle_root, degradation))
        super().__init__(
            device=torch.device(device),
            val_data_loader=DataLoader(Dataset(data, preprocessing), num_workers=0),
            prepare_batch=prepare_lr_hr,
            network=choose_precision(
                prepare(load_weights(network, checkpoint, device, digest, degradation)), torch.device(device), amp
            ),
            inferer=inferer,
            postprocessing=Compose([CopyItemsd("pred", names="sr"), restore, save]),
            val_handlers=[report(**known, shipped=others), *val_handlers],
            **options,
        )

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Evaluate every scan; volumes that cannot be used, and HR in other units than LR, are named first."""
        dataset: Any = self.data_loader.dataset  # type: ignore[union-attr]

        def prepare(entry: dict[str, Any]) -> None:
            volumes = dataset.transform(entry)
            match_hr(volumes["hr"], volumes["lr"])

        try_each(dataset.data, prepare)
        super().run(global_epoch)
