"""Curves: losses of a training, and a learned degradation."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter1d

from .files import save_figure


def _read_history(history: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Iterations and values by key, in order of first appearance."""
    series: dict[str, dict[int, float]] = {}
    for number, line in enumerate(Path(history).read_text().splitlines(), start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            # A killed run may leave a half-written last line, and a resumed run continues after it.
            if line.startswith("{") and '"iteration"' in line:
                continue
            raise ValueError(f"{history}, line {number}: not a JSON object with an iteration.") from error
        for key in [key for key in entry if key not in ("iteration", "epoch")]:
            # A resumed run repeats the iterations after its checkpoint; the later line counts.
            series.setdefault(key, {})[entry["iteration"]] = math.nan if entry[key] is None else float(entry[key])
    return {
        key: (np.array(sorted(values)), np.array([values[i] for i in sorted(values)])) for key, values in series.items()
    }


def draw_loss_curves(path: str | os.PathLike, history: str | os.PathLike) -> None:
    """Draw every term of every player over the iterations, smoothed over faint raw values, and the validation.

    Args:
        path: the PNG to write.
        history: JSON lines as the trainer writes them: ``{"iteration": 1, "epoch": 1, "generator/image_cycle/l1": 0.1,
            ...}``; keys that begin with ``validation/`` are drawn as points. Later lines replace earlier ones of the
            same iteration.
    """
    series = _read_history(history)
    if not series:
        raise ValueError(f"{history} holds no losses.")
    last = max(int(iterations[-1]) for iterations, _ in series.values())
    columns = min(4, len(series))
    rows = math.ceil(len(series) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.3 * rows + 0.3), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    players = list(dict.fromkeys(key.split("/")[0] for key in series))
    for panel, (key, (iterations, values)) in zip(panels, series.items(), strict=False):
        colour = f"C{players.index(key.split('/')[0])}"
        finite = np.isfinite(values)
        title = key if finite.all() else f"{key}\n{np.sum(~finite)} not finite"
        panel.set_title(title, fontsize=8, color="black" if finite.all() else "red")
        iterations, values = iterations[finite], values[finite]
        if key.startswith("validation/"):
            panel.plot(iterations, values, "o-", color=colour, markersize=3, linewidth=1)
        elif values.size:
            point = {"marker": "o", "markersize": 3} if values.size == 1 else {}
            panel.plot(iterations, values, color=colour, alpha=0.25, linewidth=0.6, **point)
            panel.plot(iterations, uniform_filter1d(values, max(1, values.size // 50), mode="reflect"), color=colour)
            if values.min() > 0 and values.max() > 3 * values.min():
                panel.set_yscale("log")
        panel.tick_params(labelsize=7, which="both")
        panel.grid(alpha=0.3)
    for panel in panels[len(series) :]:
        panel.set_axis_off()
    for panel in panels[max(0, len(series) - columns) : len(series)]:
        panel.set_xlabel("iteration", fontsize=8)
        panel.tick_params(labelbottom=True)
    panels[0].set_xlim(0, last * 1.02)
    save_figure(figure, path)


def draw_validation_curves(path: str | os.PathLike, histories: Mapping[str, Sequence[str | os.PathLike]]) -> bool:
    """Draw the validation PSNR of several methods over the iterations of their trainings.

    Args:
        path: the PNG to write.
        histories: of each method, as for :func:`draw_loss_curves`; those of its seeds have one colour.

    Returns:
        Whether it was drawn; without a validation PSNR it is not.
    """
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    panel = figure.subplots()
    curves: dict[str, list] = {}
    for method, files in histories.items():
        for found in map(_read_history, files):
            if "validation/psnr" in found:
                curves.setdefault(method, []).append(found["validation/psnr"])
    for number, (method, of_seeds) in enumerate(curves.items()):
        style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "os^v"[number // 10 % 4], "markersize": 3}
        for seed, (iterations, values) in enumerate(of_seeds):
            panel.plot(iterations, values, linewidth=1, label=None if seed else method, **style)
    if not curves:
        return False
    panel.set(xlabel="iteration", ylabel="PSNR in validation (dB)")
    panel.set_xlim(left=0)
    panel.ticklabel_format(useOffset=False)
    panel.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=8)
    save_figure(figure, path)
    return True


def format_noise_range(levels: Sequence[float]) -> str:
    """Return the lowest and the highest level of noise in per cent, rounded to hundredths."""
    low, high = (f"{100 * level:.2f}" for level in (min(levels), max(levels)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def draw_degradation(path: str | os.PathLike, degradation: Mapping[str, Any]) -> None:
    """Draw windows over k-space and kernels.

    Args:
        path: the PNG to write.
        degradation: ``{"noise", "axes"}`` of :class:`common.handlers.DegradationReport`.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    figure.suptitle(
        f"learned degradation; noise of the target {format_noise_range(degradation['noise'])} of the brightest voxels"
    )
    windows, kernels = figure.subplots(1, 2)
    for name, style, axis in zip("xyz", ("-", "--", ":"), degradation["axes"], strict=True):
        windows.plot(axis["frequencies"], axis["window"], style, label=name)
        kernel = np.asarray(axis["kernel"])
        kernels.plot(np.arange(kernel.size) - (kernel.size - 1) / 2, kernel, style, marker=".", label=name)
    windows.set(xlabel="cycles per HR voxel", ylabel="window", ylim=(0, 1.05))
    kernels.set(xlabel="HR voxels from the centre", ylabel="kernel")
    windows.legend(title="axis of the volume")
    save_figure(figure, path)
