"""Reports of what a training has learned: degradations, kernels, translations and features."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn

from ..data import KernelCropLoader, UnpairedSlabLoader
from ..data.loaders.through_plane import MULTIPLE
from ..data.loaders.volumes import VolumeCache
from ..degradations import Degradation, InPlaneKernel
from ..graph import TensorGraph
from ..io.files import load_state, write_atomically
from ..networks import KernelGenerator
from ..physics.blur_kernels import centre_kernel, describe_kernel, make_gaussian_kernel, save_kernels

_SHARP = 1.0  # FWHM in HR pixels
_SLICES = 24  # of each kind in the picture of the MSCN distributions


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
        from ..reports import draw_degradation, format_noise_range  # here, because matplotlib takes long to load

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
        from .. import reports  # here, because matplotlib takes long to load, and inference needs none

        kernels = (self.generator.eval()() if self.as_trained else self.generator.average).detach().cpu()
        kernels = torch.stack([kernel / kernel.sum() for kernel in kernels])
        if not self.as_trained:
            kernels = torch.stack([centre_kernel(kernel, self.offset) for kernel in kernels])
        entries = [
            {"volume": case.volume, "slice": case.slice, **describe_kernel(kernel), "kernel": kernel.tolist()}
            for case, kernel in zip(self.loader.cases, kernels, strict=True)
        ]
        about = {"hr_spacing_mm": self.spacing, "factor": self.factor, "offset": self.offset}
        reports.draw_kernels(self.path.with_suffix(".png"), entries, self.spacing)
        images = self._make_images(kernels)
        reports.draw_mscn(self.path.with_name(f"{self.path.stem}_mscn.png"), images)
        save_kernels(self.path, entries, **about)
        scans, *degraded = images
        distances = {name: reports.compute_mscn_distance(images[scans], images[name]) for name in degraded}
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
        chosen = _select_evenly(list(zip(self.loader.cases, kernels, strict=True)), _SLICES)
        share = max(1, _SLICES // len(chosen))
        for case, kernel in chosen:
            images["LR scans"] += [plane.numpy() for plane in _select_evenly(case.lr, share)]
            for plane in _select_evenly(case.hr, share):
                rows, columns = (n // self.factor * self.factor for n in plane.shape)
                for name, of_lr in (("estimated kernels", kernel), ("Gaussian (sigma 1.5)", gaussian)):
                    degradation = InPlaneKernel(of_lr, self.factor, self.offset)
                    images[name].append(degradation(plane[:rows, :columns, None])[..., 0].numpy())
        return images


def _select_evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most this number of items, evenly spread."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))]


class TranslationReport:
    """Draws an MR image translated to CT and back, and a CT image translated to MR and back, after each epoch.

    The pictures are the middle planes, across the first axis, of the first volumes. The engine's graph has the steps
    "mr", "ct_fake", "mr_cycle", "mr_fake" and "ct_cycle", of the batch keys "lr", "hr", "prior_mr" and "prior_ct".

    Args:
        path: the PNG to write.
        source: CT volumes, key "hr", in [0, 1].
        target: thick-slice MR, key "lr", in [0, 1].
        degradation: makes slices thick.
        attributes: length of an attribute code.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        source: VolumeCache,
        target: VolumeCache,
        degradation: Degradation,
        attributes: int = 8,
    ) -> None:
        self.path = Path(path)
        self.degradation = degradation
        self.images = {"hr": self._cut_middle(source, "hr"), "lr": self._cut_middle(target, "lr")}
        self.affines = {
            "CT": source.affines[0]["hr"],
            "MR": np.asarray(degradation.compute_hr_affine(target.affines[0]["lr"])),
        }
        # The same code each time, so that pictures of two epochs can be compared.
        code = torch.randn(1, attributes, generator=torch.Generator().manual_seed(0))
        self.batch = {**self.images, "prior_mr": code, "prior_ct": code}

    @staticmethod
    def _cut_middle(volumes: VolumeCache, key: str) -> torch.Tensor:
        volume = volumes[0][key]
        height, width = (n // MULTIPLE * MULTIPLE for n in volume.shape[2:])
        return 2 * volume[:, volume.shape[1] // 2, :height, :width][None] - 1

    def attach(self, engine: Engine) -> None:
        """Draw when an epoch ends, in process 0 only."""
        if not dist.is_initialized() or dist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._draw)

    @torch.no_grad()
    def _draw(self, engine: Any) -> None:
        # Here, because matplotlib takes long to load, and inference needs none.
        from ..reports import draw_translation

        batch = {key: tensor.to(engine.state.device) for key, tensor in self.batch.items()}
        engine.graph.eval()
        values = engine.graph(batch, ["mr", "ct_fake", "mr_cycle", "mr_fake", "ct_cycle"])
        engine.graph.train()
        images = {key: tensor[0].float().cpu().numpy() for key, tensor in values.items() if tensor.ndim == 4}
        thick = np.repeat(images["lr"], self.degradation.factors[2], axis=-1)
        rows = {
            "MR": {"thick slices": thick, "SR": images["mr"], "as CT": images["ct_fake"], "back": images["mr_cycle"]},
            "CT": {"CT": images["hr"], "as MR": images["mr_fake"], "back": images["ct_cycle"]},
        }
        draw_translation(self.path, {name: (row, self.affines[name]) for name, row in rows.items()})


class FeatureReport:
    """Draws feature maps of both groups, and their distribution before and after adaptation.

    It attaches to an evaluator. When that has run, it draws if the training's state exists: ``features.png`` and
    ``tsne.png`` (Liu et al. 2023, fig. 4 and 5). Random encoders differ even without adaptation, so "before" is a
    training without it, lambda_5 = lambda_6 = 0. If none is given, its panel is left out.

    Args:
        output_dir: folder of the report.
        graph: of the training.
        source, target: the graph's steps with the features of a source slab and of a target slab.
        source_lr: the graph's step that degrades a source slab to LR.
        state: file of a :class:`~common.handlers.ResumableState`, with the trained networks.
        loader: makes the loader of the training. Its batches are embedded, and its first volumes are drawn.
        network, degradation: the trained network from LR to SR, and the degradation from HR to LR.
        batches: number of embedded batches.
        device: where the graph is computed.
        before: like ``state``, of the same training without adaptation; or None.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        graph: TensorGraph,
        source: str,
        target: str,
        source_lr: str,
        state: str | os.PathLike,
        loader: Callable[[], UnpairedSlabLoader],
        network: nn.Module,
        degradation: Degradation,
        batches: int,
        device: torch.device,
        before: str | os.PathLike | None = None,
    ) -> None:
        graph.check_outputs((source, target, source_lr), type(self).__name__)
        self.output_dir, self.state = Path(output_dir), Path(state)
        self.graph, self.source, self.target, self.source_lr = graph, source, target, source_lr
        self.make_loader, self.network, self.degradation = loader, network, degradation
        self.batches, self.device = batches, device
        self.before = None if before is None else Path(before)
        if self.before is not None:
            self._load_state(self.before)  # so that a bad file fails now, and not after all cases

    def attach(self, engine: Engine) -> None:
        """Draw at the end of the evaluator's run."""
        engine.add_event_handler(Events.COMPLETED, self._draw)

    @torch.no_grad()
    def _draw(self, engine: Engine) -> None:
        if not self.state.is_file():
            print(f"{self.state} is not there, so no feature maps are drawn")
            return
        from .. import reports  # here, because matplotlib takes long to load, and inference needs none

        self.loader = self.make_loader()
        panels = {}
        for title, state in (("before adaptation", self.before), ("after adaptation", self.state)):
            if state is not None:
                self._load_state(state)
                panels[title] = self._pool_features()
        reports.draw_feature_tsne(self.output_dir / "tsne.png", panels)
        source, target = self._compute_planes()
        reports.draw_feature_maps(self.output_dir / "features.png", source, target)
        print(f"feature maps and t-SNE are in {self.output_dir}")

    def _load_state(self, path: Path) -> None:
        state = load_state(path, self.device)
        try:
            self.graph.load_state_dict(state["graph"])
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{path}: not the state of a training of these networks ({reason}); expected the training_state.pt of "
                "the same configs and sizes."
            ) from None
        self.graph.to(self.device).eval()

    def _pool_features(self) -> tuple[np.ndarray, np.ndarray]:
        vectors: dict[str, list[torch.Tensor]] = {self.source: [], self.target: []}
        self.loader.set_iteration(0)
        for _, batch in zip(range(self.batches), self.loader, strict=False):
            values = self.graph(batch, list(vectors))
            for name, features in vectors.items():
                features.append(values[name].mean(dim=(2, 3)).float().cpu())
        return torch.cat(vectors[self.source]).numpy(), torch.cat(vectors[self.target]).numpy()

    def _compute_planes(self) -> tuple[dict, dict]:
        """The middle slab of the first source and of the first target volume, with its images and features."""
        slices, factors = self.loader.lr_patch[2], self.degradation.factors
        volume, lr = self.loader.source[0]["hr"], self.loader.target[0]["lr"]
        x, y = [n // f * f for n, f in zip(volume.shape[1:3], factors[:2], strict=True)]
        depth = slices * factors[2]
        z = (volume.shape[3] - depth) // 2
        hr = volume[None, :, :x, :y, z : z + depth]
        z = (lr.shape[3] - slices) // 2
        batch = {"hr": hr.to(self.device), "lr": lr[None, ..., z : z + slices].to(self.device)}
        values = self.graph(batch, [self.source, self.target, self.source_lr])
        sr = self.network(batch["lr"])

        def cut_plane(slab: torch.Tensor, index: int) -> np.ndarray:
            return slab[0, 0, ..., index].float().cpu().numpy()

        # The volumes have the axis order of the slabs. A plane is drawn along these axes, not the world's.
        centre = slices // 2
        fine = centre * factors[2] + math.floor(self.degradation.offset[2])
        source = {"image": cut_plane(hr, fine), "lr": cut_plane(values[self.source_lr], centre)}
        target = {"image": cut_plane(sr, fine), "lr": cut_plane(batch["lr"], centre)}
        for group, feature in ((source, self.source), (target, self.target)):
            group["features"] = values[feature][0].float().cpu().numpy()
            group["affine"] = np.eye(4)
        return source, target
