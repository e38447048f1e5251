"""Evaluation of a super-resolution method against known HR volumes."""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from torch import nn

from ..degradations.base import Degradation
from ..io.files import read_json_object
from ..io.naming import make_case_stem
from ..io.writing import check_writable, write_atomically
from ..metrics.baseline import interpolate_bicubic, interpolate_cubic
from ..metrics.metric import Metric
from ..reports.case import compute_error_panel, draw_panels
from ..reports.cohort import KEYS, LABELS, MEASURED, draw_box_plots, write_table
from ..reports.evaluated import METRICS, EvaluatedCase, clip_volume, match_hr
from ..reports.files import save_figure
from ..reports.planes import PLANES_FILE, View, save_panels
from ..runtime.machine import name_machine
from ..runtime.precision import match_precision, name_precision, unwrap_autocast
from ..transforms.scan.volume import get_white_level
from ..weights.loading import load_weights


class EvaluationReport:
    """Writes a table that compares the method with cubic interpolation over cases, and a picture of each case.

    It attaches to an evaluator whose batches are ``{"lr", "hr"}``, and may have ``"guide"``: another contrast of the
    subject, ``(1, X, Y, Z)`` on the HR grid. Methods in ``compare_with`` then take the guide as second input, and the
    picture shows it. The displacement is the shift of the result against the interpolated input, in HR voxels along the
    axes in the method's order (z across the slices). ``psnr_registered`` is PSNR after a shift against HR is taken out
    (:func:`common.metrics.shift_volume`); what it has more than ``psnr`` was lost by the shift. That shift is measured
    against HR, because noise of the input can change a measured shift by 0.1 voxel. Less than 0.03 voxel is no shift. A
    result that is not displaced against the input, such as cubic interpolation, keeps its PSNR. One without structure
    has NaN. ``person`` is the subject in the datalist. If the network learns from the scan, the method's rows
    have ``seed``, ``iterations``, ``seconds`` for the case, ``machine`` and ``precision``. ``output_dir`` gets
    ``table.csv``, ``table.json``, ``boxplots.png``, and for each case ``<case>.png`` and ``<case>_planes.npz``, the
    columns of its picture for one with other runs. ``cost.json`` has the
    network's number of parameters, 0 if the inferer runs no network, the inferer's seconds for each case, which include
    moving the case to the device, and the HR files.

    If HR has other units than an LR file, it is brought to these, with a warning. ``data_range`` defines the data
    range of PSNR and SSIM. ``percentile`` is the 99.9th percentile of HR; all volumes are divided by it and cut to
    [0, 1], as by ``compare`` and ``judge``. ``maximum``, as in papers, is the largest voxel of HR, and only values
    below the scan's smallest voxel are cut off, as in the saved file.

    ``score_over`` defines the region of PSNR and SSIM. ``volume`` is the volume, with SSIM in 3-D. ``slices`` is the
    mean over the slices along z, in 2-D. Slices of air do not count, because there PSNR measures how black the
    background is, and SSIM is 1. The slices are the same for all methods and scales
    (:func:`common.metrics.select_slices` of HR in [0, 1]). ``centre_slice`` is slice n // 2 of n, counted from 0, in
    2-D. The table then also has bicubic interpolation (:func:`common.metrics.interpolate_bicubic`). It is the baseline
    of papers on 2-D networks, and weaker than cubic. All other scores and pictures are of volumes in [0, 1] by the
    percentile.

    Args:
        output_dir: folder of the report.
        degradation: from HR to LR; gives the positions of LR voxels.
        method: name of the evaluator's network in the table.
        network: with the architecture of the files in ``compare_with``; None without such files.
        prepare: converts a network with loaded weights to the equal network that runs; default the same.
        compare_with: further methods by their names in the table, where they come before the method. Each is a file of
            weights for ``network``, or a network with its weights loaded, which runs in the evaluator's inferer with
            the same inputs, or ``{"network": <network>, "inferer": <inferer>}`` with an inferer of its own.
        shipped: such entries of weights that ship, with network and inferer.
        metrics: further metrics by the names of their columns: functions of a result and HR, such as metrics of MONAI,
            or :class:`common.metrics.Metric`, which has a title too.
        data_range: ``percentile`` or ``maximum``.
        score_over: ``volume``, ``slices`` or ``centre_slice``.
        task: lines over the table, see :func:`common.weights.task.describe_task`.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        degradation: Degradation,
        method: str,
        network: nn.Module | None = None,
        prepare: Callable[[nn.Module], nn.Module] = lambda network: network,
        compare_with: Mapping[str, str | os.PathLike | nn.Module | Mapping] | None = None,
        shipped: Mapping[str, Mapping] | None = None,
        metrics: Mapping[str, Callable[..., Any] | Metric] | None = None,
        data_range: str = "percentile",
        score_over: str = "volume",
        task: Sequence[str] = (),
    ) -> None:
        check_writable(output_dir)
        self.output_dir = Path(output_dir)
        self.degradation = degradation
        self.method, self.task = method, task
        # Networks of an inference.json are already in the form that runs.
        self.compare_with: dict[str, tuple[nn.Module, Callable | None]] = {
            name: (entry["network"], entry["inferer"]) for name, entry in (shipped or {}).items()
        }
        for name, entry in (compare_with or {}).items():
            other, inferer = _load_compared_method(name, entry, network, degradation)
            self.compare_with[name] = prepare(other), inferer
        self.metrics = dict(METRICS)
        for name, given in (metrics or {}).items():
            metric = given if isinstance(given, Metric) else Metric(given)
            if name in ("case", "method", *KEYS, *LABELS, *MEASURED) or not callable(metric.function):
                raise ValueError(
                    f"metrics: '{name}' is {given!r}, expected a function of result and HR, and a name that no other "
                    "column has."
                )
            metric.title = metric.title or name
            self.metrics[name] = metric
        self.measured = {"data_range": data_range, "score_over": score_over}
        for name, value in self.measured.items():
            if value not in MEASURED[name]:
                raise ValueError(f"{name} is {value!r}, expected {' or '.join(MEASURED[name])}.")
        if score_over == "centre_slice":
            # Unsupported degradations are refused before any case is computed.
            interpolate_bicubic(torch.zeros(1, 1, 1), degradation.factors, degradation.offset)

    def attach(self, engine: Engine) -> None:
        """Measure each case, and write the tables at the end."""
        check_table_scans(self.output_dir, (entry["hr"] for entry in engine.data_loader.dataset.data))  # type: ignore[attr-defined]
        engine.add_event_handler(Events.STARTED, self._prepare_networks)
        engine.add_event_handler(Events.ITERATION_STARTED, self._start_case)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._measure_time)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure_case)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _prepare_networks(self, engine: Any) -> None:
        self.sources: list[str] = []
        self.rows: list[dict] = []
        self.seconds: dict[str, float] = {}
        self.runs_network = False
        self.compare_with = {
            name: (match_precision(engine.network, other), inferer)
            for name, (other, inferer) in self.compare_with.items()
        }

        def mark_network_run(network: nn.Module, inputs: object) -> None:
            self.runs_network = True

        # A copy of the network that is trained on the scan keeps this hook.
        self.hook = unwrap_autocast(engine.network).register_forward_pre_hook(mark_network_run)

    def _start_case(self, engine: Engine) -> None:
        self.start_time = time.perf_counter()

    def _measure_time(self, engine: Any) -> None:
        if engine.state.device.type == "cuda":
            torch.cuda.synchronize(engine.state.device)
        self.duration = time.perf_counter() - self.start_time

    def _measure_case(self, engine: Any) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            lr, hr, sr = output["image"], output["label"], output["pred"]
            factors, offset = self.degradation.factors, self.degradation.offset
            name = make_case_stem(str(hr.meta["filename_or_obj"]), batch.get("subject"))
            if any(row["case"] == name for row in self.rows):
                raise ValueError(f"two cases are named {name}; give their files or subjects different names.")
            self.seconds[name] = self.duration
            self.sources.append(os.path.realpath(str(hr.meta["filename_or_obj"])))
            guide = batch.get("guide")
            volumes = {"cubic": interpolate_cubic(torch.as_tensor(lr).cpu(), factors, offset)}
            if self.measured["score_over"] == "centre_slice":
                volumes["bicubic"] = interpolate_bicubic(torch.as_tensor(lr).cpu(), factors, offset)
            for other, (network, inferer) in self.compare_with.items():
                network.to(engine.state.device)
                # An inferer of its own comes with a network that learned from volumes that the percentile scaled.
                one = get_white_level(lr) if inferer else 1.0
                inputs = [torch.as_tensor(v)[None].to(engine.state.device) for v in (lr, guide) if v is not None]
                with torch.no_grad():
                    volumes[other] = (inferer or engine.inferer)(inputs[0] / one, network, *inputs[1:])[0] * one
            volumes[self.method] = sr
            hr = match_hr(hr, lr)
            case = EvaluatedCase(volumes, lr, hr, factors, **self.measured)
            scores: dict[str, dict[str, float]] = {}
            for method in volumes:
                measured = {key: case.measure(each, method, engine.state.device) for key, each in self.metrics.items()}
                row = {"case": name, "method": method, "person": batch.get("subject"), **self.measured}
                trained = _describe_self_training(engine, self.duration) if method == self.method else {}
                self.rows.append(row | measured | trained)
                scores[method] = measured
            affine = np.asarray(hr.affine, dtype=np.float64)
            view = View.from_file(hr.meta["filename_or_obj"])
            images = {"LR": view.cut_panel(clip_volume(lr, lr, hr), self.degradation.compute_lr_affine(affine))}
            images |= {
                key: view.cut_panel(volume, affine) for key, volume in {**case.volumes, "HR": case.truth}.items()
            }
            save_panels(self.output_dir / PLANES_FILE.format(name), images)
            errors = {key: compute_error_panel(images[key], images["HR"]) for key in volumes}
            second = {} if guide is None else {"guide": view.cut_panel(clip_volume(guide, guide, guide), affine)}
            panels = {"LR": images["LR"], **second, **images}
            save_figure(draw_panels(name, panels, errors, scores), self.output_dir / f"{name}.png")

    def _finish(self, engine: Any) -> None:
        self.hook.remove()
        if not self.rows:
            return
        table = write_table(self.output_dir, self.rows, self.metrics, self.task)
        print("\n".join([*self.task, table]))
        draw_box_plots(self.output_dir / "boxplots.png", self.rows, self.metrics)
        parameters = sum(p.numel() for p in engine.network.parameters()) if self.runs_network else 0
        with write_atomically(self.output_dir / "cost.json") as path:
            cost = {"parameters": parameters, "seconds": self.seconds, "sources": self.sources}
            path.write_text(json.dumps(cost, indent=2) + "\n")
        print(f"table and pictures are in {self.output_dir}")


def check_table_scans(output_dir: str | os.PathLike, hr: Iterable[str | os.PathLike]) -> None:
    """Refuse a folder that has a table of HR files which are not evaluated now, so that no other scan's table is lost.

    Args:
        output_dir: folder of a report.
        hr: the HR files that are evaluated now.
    """
    before, _ = read_json_object(Path(output_dir) / "cost.json")
    if others := sorted(set(before.get("sources", ())) - {os.path.realpath(file) for file in hr}):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise FileExistsError(
            f"{output_dir} has a table of other scans, {others[0]}{more}; name another --output_dir (with --checkpoint "
            "for the weights), or remove the table."
        )


def _load_compared_method(
    name: str, entry: str | os.PathLike | nn.Module | Mapping, network: nn.Module | None, degradation: Degradation
) -> tuple[nn.Module, Callable | None]:
    """Return network and inferer of an entry of ``compare_with``; the inferer is None for the evaluator's."""
    if isinstance(entry, nn.Module):
        return entry.eval(), None
    if isinstance(entry, Mapping) and entry.keys() == {"network", "inferer"}:
        return entry["network"].eval(), entry["inferer"]
    if not isinstance(entry, (str, os.PathLike)):
        raise ValueError(
            f"compare_with: '{name}' is {entry!r}, expected a file of weights, a network, or an object with the keys "
            "network and inferer."
        )
    if network is None:
        raise ValueError(
            f"compare_with: '{name}' is the file {entry}, but the report has no network to load it into; give the "
            f"network itself, for example by common.weights.loading.load_weights."
        )
    return load_weights(copy.deepcopy(network), entry, degradation=degradation), None


def _list_inferers(inferer: Any) -> list:
    """Return an inferer and those that it runs."""
    return [] if inferer is None else [inferer, *_list_inferers(getattr(inferer, "inferer", None))]


def _describe_self_training(engine: Any, seconds: float) -> dict[str, object]:
    """Return the facts about a training on the scan, for its row; empty if there is none or weights were loaded."""
    adapted = [part for part in _list_inferers(engine.inferer) if getattr(part, "is_self_trained", False)]
    if not adapted or "path" in getattr(engine.network, "origin", {}):
        return {}
    return {
        "seed": adapted[0].seed,
        "iterations": adapted[0].iterations,
        "seconds": round(seconds, 1),
        "machine": name_machine(engine.state.device),
        "precision": name_precision(engine.network),
    }
