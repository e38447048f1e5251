"""Bring scans that the scanner interpolated back to the acquired matrix."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from scipy.fft import irfft, rfft

from ...runtime.errors import Notice
from .volume import attach_meta

_NEARLY = 0.9  # of the image's matrix; an acquired matrix above this is not worth a crop
# Bands of k-space inside and outside of the acquired samples, in units of their highest frequency; largest ratio of the
# amplitudes, outside over inside; share of the lines that are compared. These are the brightest, because noise in the
# air of a magnitude image fills k-space. The ratio was 0.08 and 0.11 in a Philips T2w with its matrix in the header,
# 0.09 to 0.30 in simulated scans with 1 % noise, and 0.4 to 0.7 in most scans that were not interpolated.
_INSIDE, _OUTSIDE, _EMPTY, _BRIGHTEST = (0.7, 0.9), (1.05, 1.3), 0.4, 0.1


def crop_k_space(volume: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    r"""Undo the zero-filling of k-space: keep the samples that were acquired.

    For each axis of N samples, of which n were acquired,

    .. math:: y_m = \frac{1}{N}\,\sum_{|k| \le n/2} X_k\, e^{2 \pi i k m / n}, \qquad X = \mathrm{FFT}(x)

    Sample 0 keeps its position, and the mean is kept. For even n the samples at -n/2 and n/2 are added, because
    zero-filling leaves half of the acquired sample in each. The magnitude is taken again, because ringing may be
    negative, unless the volume itself has negative values.

    Args:
        volume: ``(X, Y, Z)``.
        sizes: samples that were acquired along each axis, at most those of the volume.

    Returns:
        Volume of these sizes, float32.
    """
    cropped = np.asarray(volume, dtype=np.float32)
    for axis, n in enumerate(sizes):
        size = cropped.shape[axis]
        if n == size:
            continue
        k_space = np.moveaxis(rfft(cropped, axis=axis), axis, -1)[..., : n // 2 + 1].copy()
        if n % 2 == 0:
            k_space[..., -1] = 2 * k_space[..., -1].real
        cropped = np.moveaxis(irfft(k_space, n=n, axis=-1) * np.float32(n / size), -1, axis)
    return np.ascontiguousarray(cropped if volume.min() < 0 else np.abs(cropped))


def compute_acquired_affine(affine: np.ndarray, shape: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    """The affine of :func:`crop_k_space`'s result: voxels are ``shape / sizes`` times as large, the first stays."""
    return np.asarray(affine, dtype=np.float64) @ np.diag([*np.divide(shape, sizes), 1.0])


def read_acquired_matrix(metadata: Mapping[str, Any], shape: Sequence[int]) -> list[int]:
    """Read the acquired matrix from a scan's sidecar JSON.

    Args:
        metadata: the JSON, with dcm2niix's keys ``AcquisitionMatrixPE`` (lines of phase encoding),
            ``FrequencyEncodingSteps`` or Siemens's ``BaseResolution`` (samples of a line) and
            ``InPlanePhaseEncodingDirectionDICOM``: "ROW" for phase encoding along the first axis of the file, "COL"
            along the second.
        shape: of the file, ``(X, Y, Z)``.

    Returns:
        Acquired samples along each axis of the file; the file's own if the JSON gives none, or more than 90 % of them.
    """
    phase, frequency = (
        next((int(n) for key in keys if isinstance(n := metadata.get(key), int | float) and 2 <= n < 1e6), None)
        for keys in (("AcquisitionMatrixPE",), ("FrequencyEncodingSteps", "BaseResolution"))
    )
    direction = str(metadata.get("InPlanePhaseEncodingDirectionDICOM")).upper()[:3]
    if phase != frequency and direction not in ("ROW", "COL"):
        return list(shape)  # it is unknown which axis has which number
    matrix = (phase, frequency) if direction == "ROW" else (frequency, phase)
    in_plane = [n if n and n <= _NEARLY * size else size for n, size in zip(matrix, shape[:2], strict=True)]
    return [*in_plane, shape[2]]


class AcquiredMatrixd(MapTransform):
    """Bring scans that the scanner interpolated back to the acquired matrix, with a warning for each.

    Args:
        keys: of volumes ``(1, X, Y, Z)``, axes as in the file. A volume is changed if its entry has "<key>_matrix", the
            acquired samples along each axis.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if (sizes := d.get(f"{key}_matrix")) is not None:
                d[key] = _crop_to_acquired(d[key], sizes)
        return d


def _crop_to_acquired(volume: Any, sizes: Sequence[int]) -> torch.Tensor:
    file, shape, voxels = volume.meta.get("filename_or_obj"), list(volume.shape[1:]), volume[0].as_tensor().numpy()
    if any(n > size for n, size in zip(sizes, shape, strict=True)):
        raise ValueError(
            f"{file}: --acquired_matrix is {list(sizes)}, expected along each axis at most the file's voxels, {shape}."
        )
    if list(sizes) == shape:
        warnings.warn(
            f"{file}: no header says that fewer voxels were acquired than the file has, {_format_sizes(shape)}; it is "
            "used "
            'as it is. If the protocol says so, set --acquired_matrix "[256,205,44]", along the axes of the file.',
            Notice,
            stacklevel=2,
        )
        return volume
    sizes_in_words = f"{_format_sizes(sizes)} of its {_format_sizes(shape)} voxels"
    if not all(_is_empty_beyond(voxels, axis, n) for axis, n in enumerate(sizes)):
        raise ValueError(
            f"{file}: {sizes_in_words} should have been acquired, but k-space does not end there, and detail would be "
            "lost. Leave --acquired_matrix out for this scan."
        )
    warnings.warn(
        f"{file}: used as acquired, {sizes_in_words}; the others were interpolated by the scanner.",
        Notice,
        stacklevel=2,
    )
    cropped = torch.from_numpy(crop_k_space(voxels, sizes))[None]
    return attach_meta(cropped, compute_acquired_affine(volume.affine, shape, sizes), volume.meta)


def _is_empty_beyond(volume: np.ndarray, axis: int, n: int) -> bool:
    """Whether k-space along an axis is nearly empty beyond ``n`` samples, except for noise and magnitude effects."""
    lines = np.moveaxis(volume, axis, -1).reshape(-1, volume.shape[axis])
    means = lines.mean(axis=1)
    lines = lines[means >= np.quantile(means, 1 - _BRIGHTEST)]
    power: Any = np.mean(np.abs(rfft(lines, axis=1)) ** 2, axis=0, dtype=np.float64)
    frequency = np.arange(power.size) / (n / 2)
    inner, outer = (power[(frequency >= low) & (frequency <= high)] for low, high in (_INSIDE, _OUTSIDE))
    if not inner.size or not outer.size:
        return True  # the image has hardly more samples
    return bool(np.sqrt(outer.mean()) < _EMPTY * np.sqrt(inner.mean()))


def _format_sizes(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
