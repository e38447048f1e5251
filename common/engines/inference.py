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

from ..data import provenance
from ..data.loaders.cases import CaseLoader, prepare_lr_hr
from ..data.scans import Scans
from ..degradations import Degradation
from ..io.files import check_writable
from ..runtime.precision import in_precision, settled
from ..transforms import MeasureAgreementd, OnGridOfd, RestoreVolumed, SaveLabelsd, SaveVolumed
from ..values import is_true
from ..weights import load, read_overlay
from .evaluator import CaseEvaluator

_AFTER = 70e-9  # seconds per voxel of a result for comparison with its scan, restoring and saving


class Inference(CaseEvaluator):
    """Super-resolve scans one by one, and write each result with a JSON of its provenance, and a log.

    Args:
        device: where the network runs.
        dataset: the scans.
        network: the weights are loaded into it; without a ``checkpoint``, it is used unchanged.
        inferer: runs the network on a volume.
        degradation: from the result to the scan; None if the inferer combines several scans and sets the result's
            affine.
        output_dir: folder of the results.
        checkpoint: file of the weights, or None.
        digest: of the weights' tensors, or None; see :func:`common.weights.load`.
        bundle_root: folder of the bundle.
        like: file with the grid of the results; None for the grid that follows from the scan and the scale.
        prepare: converts the network with its weights to an equal, faster network; None for no conversion.
        postprocessing: of each case; default: measure agreement with the scan, restore its units and grid, and save; a
            label map of the scan too.
        report: whether to write an HTML page for each result.
        val_handlers: further handlers with ``attach``.
        amp: whether the network runs under autocast; None for the choice of :func:`common.runtime.precision.settled`.
        amp_kwargs: of ``torch.autocast``; default bfloat16.

    Raises:
        FileNotFoundError, ValueError: if the weights are missing, or do not belong to the config; or if there are no
            weights and the inferer does not learn.
        PermissionError, NotADirectoryError: if ``output_dir`` is not writable.
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
                    "iterations is 0 and there are no weights, so the result would only be interpolation: give "
                    "--iterations, or add the overlay of weights to --config_file."
                )
            network = network.to(device).eval()
        else:
            network = load(network, checkpoint, device, digest, degradation)
        path = getattr(network, "origin", {}).get("path")
        overlay = (None if path is None else read_overlay(path)) or {}
        network = network if prepare is None else prepare(network)
        amp = settled(None if amp is None else is_true(amp, "amp"), network, device, amp_kwargs)
        dataset.find(str(output_dir), degradation, overlay.get("training_range"), torch.device(device))
        grid: dict[str, Any] = {"reference": "image", "degradation": degradation}
        description = provenance.describe(bundle_root, degradation)
        standard = Compose(
            [
                *([] if degradation is None else [MeasureAgreementd("pred", **grid)]),
                RestoreVolumed("pred", **grid),
                *([] if like is None else [OnGridOfd("pred", like)]),
                SaveLabelsd("label_map", "pred", str(output_dir), bids=dataset.bids, allow_missing_keys=True),
                SaveVolumed("pred", str(output_dir), "sr", bids=dataset.bids, description=description),
            ]
        )
        self.postprocessing = postprocessing or standard  # for programs that call the parts themselves
        super().__init__(
            device=device,
            val_data_loader=CaseLoader(dataset, ahead=torch.device(device).type == "cuda"),
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
