"""A report of the degradation that a training has learned."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from ..io.writing import write_atomically
from ..reports.curves import draw_degradation, format_noise_range


class DegradationReport:
    """Writes and draws the learned degradation at the end of a training, and prints the noise of the target's scans.

    ``degradation.json`` has ``noise``, the loader's ``noise_levels`` in units of the image, and ``axes``, those of the
    volume, the slice axis last: ``frequencies`` in cycles per HR voxel, the ``window`` over k-space there (1 along an
    axis that is not degraded), and the ``kernel`` in HR voxels. The picture is in the same folder.

    Args:
        output_dir: folder of the file.
        degradation: name of the graph's :class:`~common.networks.LinearDegradation`.
    """

    def __init__(self, output_dir: str | os.PathLike, degradation: str) -> None:
        self.path = Path(output_dir, "degradation.json")
        self.degradation = degradation

    def attach(self, engine: Engine) -> None:
        """Write when the engine has completed, in process 0 only."""
        if not dist.is_initialized() or dist.get_rank() == 0:
            engine.add_event_handler(Events.COMPLETED, self._write)

    @torch.no_grad()
    def _write(self, engine: Any) -> None:
        degradation, axes = engine.graph.networks[self.degradation], []
        learned = zip(degradation.factors, degradation.compute_windows(), degradation.compute_kernels(), strict=True)
        for factor, (frequencies, window), kernel in learned:
            shown = window.tolist() if factor > 1 else [1.0] * len(window)
            axes.append({"frequencies": frequencies.tolist(), "window": shown, "kernel": kernel.tolist()})
        about = {"noise": engine.data_loader.noise_levels, "axes": axes}
        with write_atomically(self.path) as temporary:
            temporary.write_text(json.dumps(about) + "\n")
        draw_degradation(self.path.with_suffix(".png"), about)
        print(
            f"the learned degradation and the target's noise, {format_noise_range(about['noise'])}, are in {self.path}"
        )
