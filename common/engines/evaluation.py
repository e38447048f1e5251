"""Evaluation of a method with known HR."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.transforms import Compose, CopyItemsd
from torch import nn

from ..data.loaders.cases import CaseLoader, prepare_lr_hr
from ..degradations import Degradation
from ..io import provenance
from ..io.files import check_writable
from ..runtime.precision import in_precision, settled
from ..transforms import RestoreVolumed, SaveVolumed
from ..values import is_true
from ..weights import load
from .evaluator import CaseEvaluator


class Evaluation(CaseEvaluator):
    """Super-resolve the test group, and write results, pictures, and a table with cubic interpolation.

    Args:
        device: where the network runs.
        dataset: of the cases, "hr" and "lr"; its ``data`` are their files.
        network: the weights are loaded into it; without a ``checkpoint``, it is used unchanged.
        inferer: runs the network on a volume.
        degradation: from HR to LR.
        output_dir: folder of the report.
        method: name of the network's rows in the table.
        checkpoint: file of the weights, or None.
        digest: of the weights' tensors, or None; see :func:`common.weights.load`.
        bundle_root: folder of the bundle.
        compare_with, brisque, lpips, data_range, score_over, report: as for
            :class:`common.handlers.EvaluationReport`.
        prepare: converts the network with its weights to an equal, faster network; None for no conversion.
        postprocessing: of each case; default: restore the scan's units and grid, and save.
        val_handlers: further handlers with ``attach``.
        amp: whether the network runs under autocast; None for the choice of :func:`common.runtime.precision.settled`.
        amp_kwargs: of ``torch.autocast``; default bfloat16.

    Raises:
        FileNotFoundError, ValueError: if the weights are missing, or do not belong to the config.
        PermissionError, NotADirectoryError: if ``output_dir`` is not writable.
        FileExistsError: if ``output_dir`` has a table of other scans.
    """

    def __init__(
        self,
        device: torch.device,
        dataset: Any,
        network: nn.Module,
        inferer: Inferer,
        degradation: Degradation,
        output_dir: str | os.PathLike,
        method: str,
        checkpoint: str | os.PathLike | None = None,
        digest: str | None = None,
        bundle_root: str | os.PathLike = ".",
        compare_with: Mapping[str, Any] | None = None,
        brisque: str | os.PathLike | None = None,
        lpips: str | os.PathLike | bool | None = None,
        data_range: str = "percentile",
        score_over: str = "volume",
        report: bool | str = False,
        prepare: Callable[[nn.Module], nn.Module] | None = None,
        postprocessing: Callable | None = None,
        val_handlers: Sequence | None = None,
        amp: bool | str | None = None,
        amp_kwargs: dict | None = None,
    ) -> None:
        from ..handlers import EvaluationReport, check_own_table

        check_writable(output_dir)
        check_own_table(output_dir, (entry["hr"] for entry in dataset.data))
        if checkpoint is None:
            network = network.to(device).eval()
        else:
            network = load(network, checkpoint, device, digest, degradation)

        amp = settled(None if amp is None else is_true(amp, "amp"), network, device, amp_kwargs)

        def ready(network: nn.Module) -> nn.Module:
            return in_precision(network if prepare is None else prepare(network), device, amp, amp_kwargs)

        standard = Compose(
            [
                CopyItemsd("pred", names="sr"),
                RestoreVolumed("sr", reference="image", degradation=degradation),
                SaveVolumed("sr", str(output_dir), "sr", description=provenance.describe(bundle_root, degradation)),
            ]
        )
        table = EvaluationReport(
            output_dir,
            degradation,
            method,
            network,
            compare_with,
            brisque,
            lpips,
            data_range,
            score_over,
            report,
            ready,
        )
        super().__init__(
            device=device,
            val_data_loader=CaseLoader(dataset, ahead=torch.device(device).type == "cuda"),
            network=ready(network),
            inferer=inferer,
            prepare_batch=prepare_lr_hr,
            postprocessing=postprocessing or standard,
            val_handlers=[table, *(val_handlers or ())],
        )
