"""Evaluation of weights against known HR."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import Dataset
from monai.transforms import Compose, CopyItemsd
from torch import nn

from ..data.lists.groups import Group
from ..data.provenance import describe_result
from ..degradations.base import Degradation
from ..shipped_weights import load_shipped_weights
from ..transforms.scan.save import SaveVolumed
from ..transforms.scan.volume import RestoreVolumed
from ..weights import load_weights
from .evaluator import CaseEvaluator


class Evaluation(CaseEvaluator):
    """A ``CaseEvaluator`` of scans whose HR is known. It writes each result, and a report.

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
        report: makes the report, called with ``output_dir``, ``degradation``, ``network``, ``prepare`` and ``shipped``;
            in JSON a :class:`common.handlers.EvaluationReport` with ``"_mode_": "callable"``.
        checkpoint: file of the network's weights; None to leave the network as it is.
        digest: digest of their tensors; None if it is not known.
        prepare: makes of the network with its weights the equal one that runs; default the same.
        shipped: finds weights to compare with, see its default; None for none. It is not called for simulated heads.
        val_handlers: further handlers with ``attach``.
        options: further arguments of :class:`CaseEvaluator`.

    Raises:
        FileNotFoundError, ValueError: as :func:`common.weights.load_weights`.
    """

    def __init__(
        self,
        device: torch.device | str,
        data: Sequence[Mapping[str, Any]],
        preprocessing: Callable,
        network: nn.Module,
        inferer: Callable,
        degradation: Degradation,
        slice_axis: str,
        output_dir: str | os.PathLike,
        bundle_root: str | os.PathLike,
        report: Callable[..., Any],
        checkpoint: str | os.PathLike | None = None,
        digest: str | None = None,
        prepare: Callable[[nn.Module], nn.Module] = lambda network: network,
        shipped: Callable[..., Mapping[str, Mapping]] | None = load_shipped_weights,
        val_handlers: Sequence = (),
        **options: Any,
    ) -> None:
        others: Mapping[str, Mapping] = {}
        if shipped is not None and not (isinstance(data, Group) and data.datalist.is_simulated):
            others = shipped(data, degradation, slice_axis, checkpoint, device)
        known = {"output_dir": output_dir, "degradation": degradation, "network": network, "prepare": prepare}
        restore = RestoreVolumed("sr", degradation=degradation)
        save = SaveVolumed("sr", output_dir, description=describe_result(bundle_root, degradation))
        super().__init__(
            device=torch.device(device),
            val_data_loader=Dataset(data, preprocessing),
            network=prepare(load_weights(network, checkpoint, device, digest, degradation)),
            inferer=inferer,
            postprocessing=Compose([CopyItemsd("pred", names="sr"), restore, save]),
            val_handlers=[report(**known, shipped=others), *val_handlers],
            **options,
        )
