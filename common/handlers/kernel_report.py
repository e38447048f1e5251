"""A report of estimated blur kernels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from ..data.loaders.kernel_crops import KernelCropLoader, select_evenly
from ..degradations.profiles import InPlaneKernel
from ..networks.kernel_gan import KernelGenerator
from ..physics.blur_kernels import centre_kernel, describe_kernel, make_gaussian_kernel, save_kernels
from ..reports.kernel_figures import draw_kernel_figure
from ..reports.mscn import compute_mscn_distance, draw_mscn

_SHARP = 1.0  # FWHM in HR pixels
_SLICES = 24  # of each kind in the picture of the MSCN distributions


class KernelReport:
    """Writes the kernels at the end of their estimation, and draws them and their effect.

    ``<name>.json`` has each kernel with its volume, slice, width, angle and centre; it can be edited. ``<name>.png`` is
    its picture. ``<name>_mscn.png`` has the distributions of mean subtracted contrast normalised coefficients of LR
    slices, and of HR slices degraded by these kernels and by the paper's Gaussian (Huang et al. 2021, fig. 5). If a
    finished run is resumed, an existing file stays.

    Args:
        path: of the JSON file.
        generator: of the kernels; they are written divided by their sums.
        loader: with the cases of the kernels.
        spacing: of an HR pixel along both axes in mm.
        factor: HR pixels per LR pixel.
        offset: centre of LR pixel 0 in HR pixels.
        as_trained: whether the kernels are those of the last iteration; else the generator's ``average``, centred on
            ``offset``.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        generator: KernelGenerator,
        loader: KernelCropLoader,
        spacing: Sequence[float],
        factor: int,
        offset: float,
        as_trained: bool = False,
    ) -> None:
        self.path = Path(path)
        self.generator = generator
        self.loader = loader
        self.spacing = list(spacing)
        self.factor = factor
        self.offset = offset
        self.as_trained = as_trained

    def attach(self, engine: Engine) -> None:
        """Write when the engine has completed, in process 0."""
        if dist.is_initialized() and dist.get_rank() != 0:
            return
        self.trained = False
        engine.add_event_handler(Events.ITERATION_STARTED, self._record_iteration)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _record_iteration(self, engine: Engine) -> None:
        self.trained = True

    def _write(self, engine: Engine) -> None:
        # The state is saved before: a run that was killed in between has the kernels, but not the file.
        if not self.trained and self.path.is_file():
            return
        kernels = (self.generator.eval()() if self.as_trained else self.generator.average).detach().cpu()
        kernels = torch.stack([kernel / kernel.sum() for kernel in kernels])
        if not self.as_trained:
            kernels = torch.stack([centre_kernel(kernel, self.offset) for kernel in kernels])
        entries = [
            {"volume": case.volume, "slice": case.slice, **describe_kernel(kernel), "kernel": kernel.tolist()}
            for case, kernel in zip(self.loader.cases, kernels, strict=True)
        ]
        about = {"hr_spacing_mm": self.spacing, "factor": self.factor, "offset": self.offset}
        draw_kernel_figure(self.path.with_suffix(".png"), entries, self.spacing)
        images = self._make_images(kernels)
        draw_mscn(self.path.with_name(f"{self.path.stem}_mscn.png"), images)
        save_kernels(self.path, entries, **about)
        scans, *degraded = images
        distances = {name: compute_mscn_distance(images[scans], images[name]) for name in degraded}
        sharp = [entry for entry in entries if entry["fwhm"][0] < _SHARP]
        print(f"kernels and their pictures are in {self.path.parent}")
        print("distance of MSCN coefficients, and of their products, from those of the LR scans:")
        for name, (coefficients, products) in distances.items():
            print(f"  {name:<24}{coefficients:8.4f}{products:8.4f}")
        ours, gaussian = distances.values()
        if all(a > b for a, b in zip(ours, gaussian, strict=True)):
            print(
                "warning: HR slices degraded by the Gaussian resemble the LR scans more than HR slices degraded by "
                "these kernels; look at the pictures, and do not trust the kernels"
            )
        if sharp:
            print(
                f"warning: {len(sharp)} of {len(entries)} kernels are narrower than an HR pixel, for example that of "
                f"{sharp[0]['volume']}: the scan is as sharp as the HR scans. Are they exchanged?"
            )

    def _make_images(self, kernels: torch.Tensor) -> dict[str, list[np.ndarray]]:
        """Return LR slices, and degraded HR slices of the same cases."""
        gaussian = make_gaussian_kernel(1.5, offset=self.offset)
        images: dict[str, list[np.ndarray]] = {"LR scans": [], "estimated kernels": [], "Gaussian (sigma 1.5)": []}
        chosen = select_evenly(list(zip(self.loader.cases, kernels, strict=True)), _SLICES)
        share = max(1, _SLICES // len(chosen))
        for case, kernel in chosen:
            images["LR scans"] += [plane.numpy() for plane in select_evenly(case.lr, share)]
            for plane in select_evenly(case.hr, share):
                rows, columns = (n // self.factor * self.factor for n in plane.shape)
                for name, of_lr in (("estimated kernels", kernel), ("Gaussian (sigma 1.5)", gaussian)):
                    degradation = InPlaneKernel(of_lr, self.factor, self.offset)
                    images[name].append(degradation(plane[:rows, :columns, None])[..., 0].numpy())
        return images
