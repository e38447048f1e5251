"""A scan at the matrix that was acquired, where the scanner interpolated it to a larger one."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from scipy.fft import irfft, rfft

from .volume import with_meta

_NEARLY = 0.9  # of the image's matrix; what is more is not worth a crop
# Bands of k-space on both sides of where acquired samples end, in units of that; how much less amplitude the outer one
# has there; and the share of the lines, the brightest, that are looked at, as a magnitude fills k-space where air is
# noise. In a T2w by Philips whose header says its matrix it is 0.08 and 0.11, in simulated scans with 1 % noise 0.09 to
# 0.30, and in most that were not interpolated 0.4 to 0.7.
_INSIDE, _OUTSIDE, _EMPTY, _BRIGHTEST = (0.7, 0.9), (1.05, 1.3), 0.4, 0.1


def crop_k_space(volume: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    r"""Undo the zero-filling of k-space: keep the samples that were acquired.

    For each axis of N samples, of which n were acquired,

    .. math:: y_m = \frac{1}{N}\,\sum_{|k| \le n/2} X_k\, e^{2 \pi i k m / n}, \qquad X = \mathrm{FFT}(x)

    Sample 0 stays where it is, and the mean is kept. For even n the samples at -n/2 and n/2 are added, as zero-filling
    leaves half of what was acquired in each. Scanners fill complex k-space and then take the magnitude, so that a
    little of the volume lies beyond n/2, and ringing may come out below 0. So the magnitude is taken again, unless the
    volume has negative values itself.

    Args:
        volume: ``(X, Y, Z)``.
        sizes: samples that were acquired along each axis, at most those of the volume.

    Returns:
        Volume of these sizes, float32.
    """
    cropped = np.asarray(volume, dtype=np.float32)
    for axis, n in enumerate(sizes):
        whole = cropped.shape[axis]
        if n == whole:
            continue
        k_space = np.moveaxis(rfft(cropped, axis=axis), axis, -1)[..., : n // 2 + 1].copy()
        if n % 2 == 0:
            k_space[..., -1] = 2 * k_space[..., -1].real
        cropped = np.moveaxis(irfft(k_space, n=n, axis=-1) * np.float32(n / whole), -1, axis)
    return np.ascontiguousarray(cropped if volume.min() < 0 else np.abs(cropped))


def acquired_affine(affine: np.ndarray, shape: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    """The affine of :func:`crop_k_space`'s result: voxels larger by ``shape / sizes``, the first where it was."""
    return np.asarray(affine, dtype=np.float64) @ np.diag([*np.divide(shape, sizes), 1.0])


def stated_matrix(said: Mapping[str, Any], shape: Sequence[int]) -> list[int]:
    """The matrix that was acquired, as a scan's JSON says it.

    Args:
        said: with dcm2niix's keys ``AcquisitionMatrixPE`` (lines of phase encoding), ``FrequencyEncodingSteps`` or
            Siemens's ``BaseResolution`` (samples of a line) and ``InPlanePhaseEncodingDirectionDICOM``: "ROW" where
            phase is encoded along the rows, the first axis of the file, "COL" where along the second.
        shape: of the file, ``(X, Y, Z)``.

    Returns:
        Samples along each axis of the file: those of the file where nothing is said, or hardly fewer.
    """
    phase, frequency = (
        next((int(n) for key in keys if isinstance(n := said.get(key), int | float) and 2 <= n < 1e6), None)
        for keys in (("AcquisitionMatrixPE",), ("FrequencyEncodingSteps", "BaseResolution"))
    )
    direction = str(said.get("InPlanePhaseEncodingDirectionDICOM")).upper()[:3]
    if phase != frequency and direction not in ("ROW", "COL"):
        return list(shape)  # nobody knows which is which
    matrix = (phase, frequency) if direction == "ROW" else (frequency, phase)
    in_plane = [n if n and n <= _NEARLY * whole else whole for n, whole in zip(matrix, shape[:2], strict=True)]
    return [*in_plane, shape[2]]


class AcquiredMatrixd(MapTransform):
    """Bring scans that the scanner interpolated to the matrix that was acquired, each with a warning that says so.

    Args:
        keys: of volumes ``(1, X, Y, Z)``, axes as in the file. Those are changed whose entry has a "<key>_matrix", the
            samples that were acquired along each axis.
        allow_missing_keys: whether an entry may lack a key.

    Raises:
        ValueError: when the volume has fewer, or k-space does not end there; the message names the file.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if (sizes := d.get(f"{key}_matrix")) is not None:
                d[key] = _as_acquired(d[key], sizes)
        return d


def _as_acquired(volume: Any, sizes: Sequence[int]) -> torch.Tensor:
    file, shape, voxels = volume.meta.get("filename_or_obj"), list(volume.shape[1:]), volume[0].as_tensor().numpy()
    if any(n > whole for n, whole in zip(sizes, shape, strict=True)):
        raise ValueError(
            f"{file}: --acquired_matrix is {list(sizes)}, expected along each axis at most the file's voxels, {shape}."
        )
    if list(sizes) == shape:
        warnings.warn(
            f"{file}: nothing says that fewer voxels were acquired than the file has, {_in_words(shape)}; taken as it "
            'is. If the protocol says it, say it: --acquired_matrix "[256,205,44]", along the axes of the file.',
            stacklevel=2,
        )
        return volume
    said = f"{_in_words(sizes)} of its {_in_words(shape)} voxels"
    if not all(_ends_at(voxels, axis, n) for axis, n in enumerate(sizes)):
        raise ValueError(
            f"{file}: {said} are said to be acquired, but k-space does not end there, and detail would be lost; leave "
            "--acquired_matrix out for this scan."
        )
    warnings.warn(f"{file}: taken as acquired, {said}; the others were interpolated by the scanner.", stacklevel=2)
    cropped = torch.from_numpy(crop_k_space(voxels, sizes))[None]
    return with_meta(cropped, acquired_affine(volume.affine, shape, sizes), volume.meta)


def _ends_at(volume: np.ndarray, axis: int, n: int) -> bool:
    """Whether k-space along an axis holds little beyond ``n`` samples: noise, and what a magnitude leaves there."""
    lines = np.moveaxis(volume, axis, -1).reshape(-1, volume.shape[axis])
    means = lines.mean(axis=1)
    lines = lines[means >= np.quantile(means, 1 - _BRIGHTEST)]
    power: Any = np.mean(np.abs(rfft(lines, axis=1)) ** 2, axis=0, dtype=np.float64)
    frequency = np.arange(power.size) / (n / 2)
    inner, outer = (power[(frequency >= low) & (frequency <= high)] for low, high in (_INSIDE, _OUTSIDE))
    if not inner.size or not outer.size:
        return True  # the image has hardly more
    return bool(np.sqrt(outer.mean()) < _EMPTY * np.sqrt(inner.mean()))


def _in_words(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
