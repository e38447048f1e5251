"""Shapes by signed distances and random fields, and tissues painted over each other."""

from __future__ import annotations

import numpy as np
from scipy import fft

from .signal import TISSUES, compute_squared_frequencies


class TissueFractions:
    """Fractions of tissues in each voxel, painted over each other; at first all is one tissue.

    Args:
        shape: shape (X, Y, Z) of the volume.
        tissue: of ``TISSUES``, that fills the volume.

    Attributes:
        fractions: float32 of shape (len(TISSUES), X, Y, Z), summing to 1.
    """

    def __init__(self, shape: tuple[int, ...], tissue: str = "air") -> None:
        self.fractions = np.zeros((len(TISSUES), *shape), np.float32)
        self.fractions[TISSUES.index(tissue)] = 1
        self._painted = {TISSUES.index(tissue)}

    def paint(self, tissue: str, share: np.ndarray) -> None:
        """Cover a share of each voxel, (X, Y, Z) in [0, 1], with a tissue."""
        index, keep = TISSUES.index(tissue), 1 - share
        for other in self._painted:
            self.fractions[other] *= keep
        self.fractions[index] += share
        self._painted.add(index)


def make_random_band_fields(
    shape: tuple[int, ...], spacing: float, wavelengths: tuple[float, ...], rng: np.random.Generator
) -> list[np.ndarray]:
    """Random fields of unit variance, each around one wavelength (log-normal band of a third of an octave).

    Args:
        shape: of each field.
        spacing: voxel size in mm.
        wavelengths: centres of the bands in mm; far enough apart, the fields are independent of each other.
        rng: the subject's random generator.
    """
    size = [fft.next_fast_len(n, real=True) for n in shape]
    spectrum = fft.rfftn(rng.standard_normal(size, dtype=np.float32), workers=2)
    log_frequency = 0.5 * np.log(compute_squared_frequencies(size, spacing) + np.float32(1e-12))
    fields = []
    for wavelength in wavelengths:
        band = np.exp(-0.5 * ((log_frequency + np.float32(np.log(wavelength))) / np.float32(0.25)) ** 2)
        field = fft.irfftn(spectrum * band, s=size, workers=2)[tuple(slice(n) for n in shape)]
        fields.append((field / field.std()).astype(np.float32))
    return fields


def measure_distance_to_zero(field: np.ndarray, spacing: float, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """First-order signed distance in mm to the zero level of a field, and its gradient (1/mm, at least ``floor``)."""
    square = np.full(field.shape, floor**2, np.float32)
    for axis in range(3):
        front = tuple(slice(-1) if a == axis else slice(None) for a in range(3))
        square[front] += (np.diff(field, axis=axis) / np.float32(spacing)) ** 2
    np.sqrt(square, out=square)
    return field / square, square


def compute_inside_share(distance: np.ndarray, spacing: float) -> np.ndarray:
    """Share of a voxel on the negative side of a boundary at a signed distance in mm.

    A scanner's point spread is wider than the voxel's cube. With a ramp of one voxel, the error of cubic interpolation
    after truncating k-space by two is 4 dB larger than on a sharp real T1w volume; with 1.75 voxels, 1 dB larger.
    """
    return np.clip(0.5 - distance / np.float32(1.75 * spacing), 0, 1)


def join_smoothly(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Signed distance to the union of two bodies, the seam rounded over ``width`` mm."""
    overlap = np.clip(1 - np.abs(a - b) / np.float32(width), 0, None)
    return np.minimum(a, b) - overlap**2 * np.float32(width / 4)
