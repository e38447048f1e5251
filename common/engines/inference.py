"""Inference: scans in, super-resolved scans out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import nn

from ..data.loaders.cases import CaseLoader, prepare_lr_hr
from ..data.scans import Scans
from ..degradations import Degradation
from ..io import provenance
from ..io.files import check_writable
from ..runtime.precision import in_precision, settled
from ..transforms import MeasureAgreementd, OnGridOfd, RestoreVolumed, SaveVolumed
from ..values import is_true
from ..weights import load, read_overlay
from .evaluator import CaseEvaluator

_AFTER = 70e-9  # seconds a voxel of a result takes to be compared with its scan, restored and saved


class Inference(CaseEvaluator):
    """Super-resolves scans one by one, and writes each result with a JSON that says where it comes from, and a log.

    Args:
        device: where the network runs.
        dataset: the scans.
        network: that the weights are loaded into; with no ``checkpoint`` it is taken as it is.
        inferer: runs the network on a volume.
        degradation: from the result to the scan; None where the inferer makes one result of several scans, and gives
            it an affine.
        output_dir: folder of the results.
        checkpoint: file of the weights, or None.
        digest: of their tensors, or None; see :func:`common.weights.load`.
        bundle_root: folder of the bundle.
        like: file on whose grid results are; None for that which belongs to the scan's.
        prepare: makes of the network with its weights one that gives the same in less time; None for none.
        postprocessing: of each case; default agreement with the scan, the scan's units and grid, and saving.
        report: whether to write a page for each result, to look at in a browser.
        val_handlers: further handlers with ``attach``.
        amp: whether the network runs under autocast; None for what :func:`common.runtime.precision.settled` says.
        amp_kwargs: of ``torch.autocast``; default bfloat16.

    Raises:
        FileNotFoundError, ValueError: when the weights are missing, or do not belong to the config. Without weights:
            when the network brings none, and the inferer does not learn.
        PermissionError, NotADirectoryError: when ``output_dir`` cannot be written to.
    """

    def __init__(
        self,
        device: torch.device,
        dataset: Scans,
        network: nn.Module,
        inferer: Inferer,
        degradation: Degradation | None,
        output_dir: str | os.PathLike,
        checkpoint: str | os.PathLike | None = None,
        digest: str | None = None,
        bundle_root: str | os.PathLike = ".",
        like: str | os.PathLike | None = None,
        prepare: Callable[[nn.Module], nn.Module] | None = None,
        postprocessing: Callable | None = None,
        report: bool | str = False,
        val_handlers: Sequence | None = None,
        amp: bool | str | None = None,
        amp_kwargs: dict | None = None,
    ) -> None:
        from ..handlers import InferenceResults, ResultViewer

        check_writable(output_dir)
        if checkpoint is None:
            if not hasattr(network, "origin") and not getattr(inferer, "learns", True):
                raise ValueError(
                    "iterations is 0 and there are no weights, so that nothing but interpolation would come out: give "
                    "--iterations, or lay the overlay of weights over the config."
                )
            network = network.to(device).eval()
        else:
            network = load(network, checkpoint, device, digest, degradation)
        path = getattr(network, "origin", {}).get("path")
        overlay = (None if path is None else read_overlay(path)) or {}
        network = network if prepare is None else prepare(network)
        amp = settled(None if amp is None else is_true(amp, "amp"), network, device, amp_kwargs)
        dataset.find(str(output_dir), degradation, overlay.get("training_range"))
        grid: dict[str, Any] = {"reference": "image", "degradation": degradation}
        description = provenance.describe(bundle_root, degradation)
        standard = Compose(
            [
                *([] if degradation is None else [MeasureAgreementd("pred", **grid)]),
                RestoreVolumed("pred", **grid),
                *([] if like is None else [OnGridOfd("pred", like)]),
                SaveVolumed("pred", str(output_dir), "sr", bids=dataset.bids, description=description),
            ]
        )
        self.postprocessing = postprocessing or standard  # for programs that run the parts themselves
        super().__init__(
            device=device,
            val_data_loader=CaseLoader(dataset),
            network=in_precision(network, device, amp, amp_kwargs),
            inferer=inferer,
            prepare_batch=prepare_lr_hr,
            postprocessing=self.postprocessing,
            val_handlers=[
                InferenceResults(output_dir, bundle_root, checkpoint, degradation, dataset.bids, dataset.shard),
                ResultViewer(degradation, report),
                *(val_handlers or ()),
            ],
        )
        self.after = 0.0 if degradation is None else _AFTER * math.prod(degradation.factors)
