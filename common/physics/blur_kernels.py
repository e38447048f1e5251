"""Kernels of degradations in plane: known kernels, their description, and their files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from ..geometry.gaussian import FWHM_PER_SIGMA
from ..geometry.spline import evaluate_keys_cubic
from ..io.writing import write_atomically


def make_gaussian_kernel(
    sigma: float | Sequence[float], angle: float = 0.0, size: int = 13, offset: float = 0.0
) -> torch.Tensor:
    """A Gaussian, sampled: ``(K, K)`` with sum 1, float32.

    Args:
        sigma: standard deviation in HR pixels; two numbers, along its two axes, if it is anisotropic.
        angle: degrees from the first image axis to the first axis of the Gaussian, towards the second image axis.
        size: K, odd.
        offset: of its centre from the middle of the kernel, in HR pixels along both axes.
    """
    first, second = (sigma, sigma) if isinstance(sigma, (int, float)) else sigma
    kernel = _sample_gaussian(size, (offset, offset), (first, second), np.deg2rad(angle))
    return torch.from_numpy(kernel / kernel.sum()).float()


def make_bicubic_kernel(factor: int, size: int = 13, offset: float = 0.0) -> torch.Tensor:
    """Bicubic downsampling: Keys' cubic (a = -1/2), ``factor`` times as wide, ``(K, K)`` with sum 1, float32.

    Args:
        factor: HR pixels per LR pixel.
        size, offset: as for :func:`make_gaussian_kernel`.
    """
    row = evaluate_keys_cubic((torch.arange(size, dtype=torch.float64) - (size - 1) / 2 - offset) / factor)
    kernel = torch.outer(row, row)
    return (kernel / kernel.sum()).float()


def make_zero_filling_kernel(
    factor: int, size: int = 33, offset: float = 0.0, radius: float = 1.0, width: float = 0.08
) -> torch.Tensor:
    """The point spread function of a scan whose outer k-space is zero, with a Fermi filter against ringing.

    Along each axis, ``1 / factor`` of k-space is kept: for factor 2 this is 25 % of k-space, and 75 % is zero (Huang et
    al. 2021, section 2.C.2). It is multiplied by ``1 / (1 + exp((r - radius) / width))``, where r is the distance from
    the centre, 1 at the edge of the kept part (Bernstein et al. 2001). Huang et al. give neither radius nor width.

    Args:
        factor: HR pixels per LR pixel.
        size, offset: as for :func:`make_gaussian_kernel`; the kernel is cut off beyond its size.
        radius: where the filter is 1/2, relative to the kept part.
        width: over which the filter falls, relative to the kept part.

    Returns:
        ``(K, K)`` with sum 1, float32.
    """
    nodes = 512
    f = (np.arange(nodes) + 0.5) / nodes - 0.5  # relative to the kept part, from edge to edge
    r = 2 * np.hypot(f[:, None], f)
    window = 1 / (1 + np.exp((r - radius) / width))
    position = np.arange(size) - (size - 1) / 2 - offset
    wave = np.cos(2 * np.pi * position[:, None] * f / factor)
    # Cut off at the same distance on both sides; otherwise its long tails would shift the image.
    wave[np.abs(position) > (size - 1) / 2 - abs(offset) + 1e-9] = 0
    kernel = wave @ window @ wave.T
    return torch.from_numpy(kernel / kernel.sum()).float()


def sample_kernels(count: int, factor: int, seed: int, size: int = 33, offset: float = 0.0) -> torch.Tensor:
    """Draw random kernels from a family that models scanners and their reconstructions in plane.

    Each kernel is one of three kinds, with equal probability. A Gaussian has standard deviations along its two axes
    from 0.6 to 2 HR pixels and an angle from 0 to 180 degrees. Truncation of k-space is
    :func:`make_zero_filling_kernel` without its filter. Zero filling has a filter with a radius from 0.7 to 1.2 and a
    width from 0.03 to 0.2.

    Args:
        count: number of kernels.
        factor: HR pixels per LR pixel.
        seed: of the draws.
        size, offset: as for :func:`make_gaussian_kernel`.

    Returns:
        ``(count, K, K)``, each with sum 1, float32.
    """
    rng = np.random.default_rng(seed)
    kernels = []
    for _ in range(count):
        kind = rng.integers(3)
        if kind == 0:
            kernels.append(make_gaussian_kernel(rng.uniform(0.6, 2, 2).tolist(), rng.uniform(0, 180), size, offset))
        elif kind == 1:
            kernels.append(make_zero_filling_kernel(factor, size, offset, radius=10))
        else:
            kernels.append(
                make_zero_filling_kernel(factor, size, offset, rng.uniform(0.7, 1.2), rng.uniform(0.03, 0.2))
            )
    return torch.stack(kernels)


def describe_kernel(kernel: torch.Tensor | np.ndarray) -> dict[str, Any]:
    """Describe a kernel by the Gaussian that fits it best (least squares).

    Args:
        kernel: ``(K, K)``.

    Returns:
        "fwhm": full widths at half maximum along the long and the short axis in HR pixels; "angle": of the long axis in
        degrees, 0 to 180, from the first image axis towards the second; "centre": from the middle of the kernel in HR
        pixels; "sum" of the kernel; "residual": norm of the difference from the Gaussian, over the kernel's norm.
    """
    from scipy.optimize import least_squares  # here, because it is slow to import and inference does not need it

    k = np.asarray(kernel, dtype=np.float64)
    size = k.shape[0]

    def predict(p: np.ndarray) -> np.ndarray:
        return p[0] * _sample_gaussian(size, p[1:3], np.exp(p[3:5]), p[5])

    best: Any = None
    peak = np.array(np.unravel_index(np.abs(k).argmax(), k.shape)) - (size - 1) / 2
    for angle in (0.0, np.pi / 4):
        start = np.array([k.max(), *peak, np.log(1.5), np.log(1.2), angle])
        fit = least_squares(lambda p: (predict(p) - k).ravel(), start)
        if best is None or fit.cost < best.cost:
            best = fit
    sigma, angle = np.exp(best.x[3:5]), np.rad2deg(best.x[5])
    if sigma[0] < sigma[1]:
        sigma, angle = sigma[::-1], angle + 90
    return {
        "fwhm": [round(float(s) * FWHM_PER_SIGMA, 4) for s in sigma],
        "angle": round(float(angle % 180), 2),
        "centre": [round(float(c), 4) for c in best.x[1:3]],
        "sum": round(float(k.sum()), 6),
        "residual": round(float(np.sqrt(2 * best.cost) / np.linalg.norm(k)), 4),
    }


def compute_kernel_error(kernel: torch.Tensor, truth: torch.Tensor) -> float:
    """``|k - k'| / |k'|`` of a kernel, scaled to the sum of the true one; the smaller is padded with zeros."""
    margins = [(max(len(kernel), len(truth)) - len(k)) // 2 for k in (kernel, truth)]
    kernel, truth = (F.pad(k.double(), [m] * 4) for k, m in zip((kernel, truth), margins, strict=True))
    return float((kernel * (truth.sum() / kernel.sum()) - truth).norm() / truth.norm())


def save_kernels(path: str | os.PathLike, kernels: Sequence[Mapping[str, Any]], **about: Any) -> None:
    """Write kernels as JSON that people can read and edit.

    Args:
        path: of the file.
        kernels: each ``{"volume": "<file>", "slice": 31, "kernel": (K, K), ...}``; slice is None if the
            kernel is of a whole volume.
        about: further keys of the file.
    """
    rounded = [{**e, "kernel": [[round(float(v), 8) for v in row] for row in e["kernel"]]} for e in kernels]
    text = json.dumps({**about, "kernels": rounded}, indent=2)
    text = re.sub(r'\[\n[^][{}"]*\]', lambda row: json.dumps(json.loads(row.group())), text)  # a row of taps is a line
    with write_atomically(Path(path)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_kernels(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """Read all files of kernels in a folder, in the order of their names.

    Returns:
        The saved entries. "kernel" is a tensor ``(K, K)``. "file" and the keys of the whole file are added.
    """
    files = sorted(Path(folder).glob("kernels*.json"), key=lambda p: (len(p.name), p.name))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no kernels*.json: estimate the kernels first (--only_stages 1), or name their folder with "
            "--kernel_dir DIR."
        )
    contents: list[dict[str, Any]] = []
    for file in files:
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            entries = about.pop("kernels")
            entries = [{**about, **entry, "file": str(file)} for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: not a file of kernels ({error}); estimate them again.") from None
        for i, entry in enumerate(entries):
            try:
                kernel = torch.tensor(entry["kernel"], dtype=torch.float32)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{file}, kernel {i}: not rows of numbers ({error}).") from None
            if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or len(kernel) % 2 == 0:
                raise ValueError(f"{file}, kernel {i}: its shape is {tuple(kernel.shape)}, expected an odd square.")
            if not bool(kernel.isfinite().all()):
                raise ValueError(f"{file}, kernel {i}: some entries are not finite, expected finite numbers.")
            if abs(float(kernel.sum()) - 1) > 0.01:
                raise ValueError(
                    f"{file}, kernel {i}: its sum is {float(kernel.sum()):.4g}, expected 1: a degradation keeps the "
                    "mean. Divide it by its sum."
                )
            if contents and contents[0]["kernel"].shape != kernel.shape:
                raise ValueError(
                    f"{file}, kernel {i}: its shape is {tuple(kernel.shape)}, but {contents[0]['file']} has "
                    f"{tuple(contents[0]['kernel'].shape)}; pad the smaller with zeros."
                )
            contents.append({**entry, "kernel": kernel / kernel.sum()})
    if not contents:
        raise ValueError(f"{folder}: its files hold no kernel; estimate the kernels first (--only_stages 1).")
    return contents


def load_kernels(
    folder: str | os.PathLike, factor: int, offset: float, hr_spacing: Sequence[float], volumes: Sequence[str]
) -> torch.Tensor:
    """Load the kernels ``(N, K, K)`` in a folder for a training with the settings of their estimation.

    LR volumes without a kernel are reported, because their estimation may have been interrupted.

    Args:
        folder: with files of kernels.
        factor: HR pixels per LR pixel.
        offset: centre of LR pixel 0 in HR pixels.
        hr_spacing: of an HR pixel along both axes in mm.
        volumes: files of the LR volumes.
    """
    entries = read_kernels(folder)
    for entry in entries:
        settings: dict[str, tuple[Any, float]]
        settings = {"factor": (factor, 0.0), "offset": (offset, 1e-6), "hr_spacing_mm": (list(hr_spacing), 0.05)}
        for key, (expected, tolerance) in settings.items():
            value: Any = entry.get(key)
            try:
                agrees = np.allclose(value, expected, rtol=tolerance, atol=1e-9)
            except (TypeError, ValueError):
                agrees = False
            if not agrees:
                raise ValueError(
                    f"{entry['file']}: its {key} is {value}, expected {expected} as in this training; estimate the "
                    "kernels again (--only_stages 1), or use the settings and HR scans of their estimation."
                )
    missing = sorted(set(map(str, volumes)) - {entry["volume"] for entry in entries})
    if missing:
        print(
            f"warning: {folder} has no kernel of {', '.join(missing)}; if their estimation was interrupted, "
            "continue it with --resume True"
        )
    return torch.stack([entry["kernel"] for entry in entries])


def centre_kernel(kernel: torch.Tensor, offset: float) -> torch.Tensor:
    """Shift a kernel so that its best-fitting Gaussian is centred on ``offset`` from its middle; keep its sum.

    Patches do not determine the centre of a kernel. Huang et al. 2021, eq. 3, fixes the centre of mass, which with side
    lobes on one side is not where the image appears.
    """
    shift = [offset - c for c in describe_kernel(kernel)["centre"]]
    if max(map(abs, shift)) > len(kernel) / 4:
        return kernel  # not a kernel that a Gaussian describes
    shifted = torch.from_numpy(ndimage.shift(kernel.double().numpy(), shift, order=3)).to(kernel)
    return shifted * (kernel.sum() / shifted.sum())


def _sample_gaussian(
    size: int, centre: Sequence[float] | np.ndarray, sigma: Sequence[float] | np.ndarray, angle: float
) -> np.ndarray:
    x = np.arange(size) - (size - 1) / 2
    first, second = x[:, None] - centre[0], x - centre[1]
    u = np.cos(angle) * first + np.sin(angle) * second
    v = np.cos(angle) * second - np.sin(angle) * first
    return np.exp(-0.5 * ((u / sigma[0]) ** 2 + (v / sigma[1]) ** 2))
