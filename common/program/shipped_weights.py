"""The shipped weights that an evaluation of own weights is compared with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nibabel.affines import voxel_sizes

from ..degradations.base import Degradation
from ..geometry.affines import find_slice_permutation
from ..weights.loading import read_overlay
from .cases.case import Case


def load_shipped_weights(
    data: Sequence[Mapping[str, Any]],
    degradation: Degradation,
    slice_axis: str,
    checkpoint: str | os.PathLike | None,
    device: torch.device | str,
    **override: Any,
) -> dict[str, dict[str, Any]]:
    """Load the weights that ship and fit an evaluation, to compare own weights with them.

    They fit if they have its scale, its position of LR voxels and its guides, and the voxel sizes of all its scans are
    in their training range. Those of the evaluated bundle come first. A line says why there are none.

    Args:
        data: entries of the evaluation, with "hr" and possibly "lr" and "guide".
        degradation: from HR to LR.
        slice_axis: as for :func:`common.geometry.affines.find_slice_permutation`.
        checkpoint: the evaluated weights; those that ship are not compared with others, and None is no training.
        device: of the network.
        override: keys of inference.json to set, if the weights' bundle has them.

    Returns:
        Network and inferer by the name of the row, for :class:`common.handlers.EvaluationReport`; empty if none fit.
    """
    if checkpoint is None:
        return {}
    try:
        from .catalogue import WITHIN, list_candidates
    except ModuleNotFoundError:  # an exported bundle is alone
        return {}
    own = read_overlay(checkpoint) or {"digest": None, "trained": {}}
    candidates = sorted(
        list_candidates(None, {}), key=lambda candidate: candidate.bundle.name != own["trained"].get("bundle")
    )
    known = [
        (candidate, overlay)
        for candidate in candidates
        if candidate.is_available and (overlay := candidate.read_overlay())
    ]
    if any(overlay["digest"] == own["digest"] for _, overlay in known):
        return {}
    guided = all("guide" in entry for entry in data)
    alike = [
        candidate
        for candidate, overlay in known
        if (candidate.scale, candidate.guided) == (tuple(degradation.factors), guided)
        and overlay["trained"].get("offset") == list(degradation.offset)
    ]
    spacings = []
    for entry in data:
        with contextlib.suppress(OSError, ValueError):  # its case fails too, and says why
            spacings.append(_compute_lr_spacing(entry, degradation, slice_axis))
    for candidate in alike:
        if all(
            pair is None or pair[0] / WITHIN <= size <= pair[1] * WITHIN
            for spacing in spacings
            for size, pair in zip(spacing, candidate.ranges, strict=True)
        ):
            network, inferer = candidate.load_network(device=device, **override)
            return {f"{candidate.bundle.name}, shipped": {"network": network, "inferer": inferer}}
    why = "are for another scale or other guides" if not alike else "were trained on other voxel sizes"
    print(f"no shipped weights are in the table: they {why}", flush=True)
    return {}


def _compute_lr_spacing(entry: Mapping[str, Any], degradation: Degradation, slice_axis: str) -> np.ndarray:
    """Voxel sizes of an entry's LR, along the ordered axes."""
    affine = Case(dict(entry)).read_grid(entry.get("lr", entry.get("hr")))[0]
    affine = affine[:, [*find_slice_permutation(affine, slice_axis), 3]]
    return voxel_sizes(affine if "lr" in entry else degradation.compute_lr_affine(affine))
