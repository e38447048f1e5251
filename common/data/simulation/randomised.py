"""Scans of simulated heads whose contrast, texture, bias field, noise and masking are drawn at random."""

from __future__ import annotations

import numpy as np
from monai.transforms.utils import get_largest_connected_component_mask
from scipy import fft, ndimage

from .signal import (
    RELAXATION,
    TISSUES,
    compute_inversion_recovery_signal,
    compute_mprage_signal,
    compute_squared_frequencies,
    compute_tse_signal,
    make_random_bias_field,
)

#: Tissues with structure finer than the label maps, which get texture. CSF, blood and bone do not.
_TEXTURED = ("wm", "gm", "marrow", "fat", "muscle")
_FAT = ("fat", "marrow")  # which resonate at another frequency than water
_LEAST_BRAIN = 0.1  # of the voxels, to be masked: a random body may have no brain
_BRAIN = ("wm", "gm", "csf", "blood")


def simulate_random_acquisition(fractions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scan a head with a random protocol, so that a network trained on many does not rely on one.

    Drawn uniformly, one after the other:

    - contrast: MPRAGE (inversion time 600 to 1200 ms, flip angle 5 to 12 degrees), spin echo (TR 400 to 900 ms, TE 8 to
      20 ms), turbo spin echo (TR 2500 to 8000 ms, TE 10 to 130 ms), FLAIR (TR 6000 to 11000 ms, TE 80 to 140 ms, CSF
      nulled to 15 %), each with T1, T2 and proton density of every tissue varied by 10 % (one standard deviation). With
      probability 1/2, tissues have random signals without physics instead;
    - chemical shift: fat and marrow are moved by up to 1.5 voxels along one axis, in half of the scans;
    - texture: in white and grey matter, marrow, fat and muscle a random field whose amplitude falls with spatial
      frequency as f to the power of -1 to -2, with a standard deviation of 1 to 8 % of the tissue's signal;
    - bias field: up to 0 to 40 % from 1;
    - Rician noise: 0.2 to 3 % of the 99.9th percentile in each channel, uniform in its logarithm;
    - mask: none, the head (air is exactly 0, as after defacing), or the brain (skull-stripped), if it has a tenth of
      the voxels.

    Args:
        fractions: tissue fractions of shape (len(TISSUES), X, Y, Z), summing to 1.
        rng: of this scan.

    Returns:
        int16 array of shape (X, Y, Z), its 99.9th percentile at 1000.

    Source:
        Billot et al., SynthSeg, Medical Image Analysis 86 (2023), for contrasts without physics and random bias.
    """
    shape = fractions.shape[1:]
    signal = _sample_signal(rng)
    moved = np.eye(3)[rng.integers(3)] * rng.uniform(-1.5, 1.5) * rng.integers(2)
    volume = np.zeros(shape, np.float32)
    amplitude = rng.uniform(0.01, 0.08)
    for index, tissue in enumerate(TISSUES):
        share = signal[index] * fractions[index]
        if tissue in _FAT and moved.any():
            share = ndimage.shift(share, moved, order=1, mode="nearest")
        if tissue in _TEXTURED:
            share = share * (1 + amplitude * _make_random_texture(shape, rng.uniform(1, 2), rng))
        volume += share
    volume *= make_random_bias_field(shape, rng.uniform(0, 0.4), rng)
    volume /= np.quantile(volume, 0.999)
    sigma = np.exp(rng.uniform(np.log(0.002), np.log(0.03)))
    volume += sigma * rng.standard_normal(shape, dtype=np.float32)
    volume = np.hypot(volume, sigma * rng.standard_normal(shape, dtype=np.float32))
    mask = rng.integers(3)
    if mask == 1:
        body = np.pad(fractions[TISSUES.index("air")] < 0.5, 2, mode="edge")
        volume *= ndimage.binary_closing(body, iterations=2)[2:-2, 2:-2, 2:-2]
    elif mask == 2 and (brain := _find_brain(fractions)).mean() > _LEAST_BRAIN:
        volume *= brain
    # A mask may remove the brightest voxels.
    return np.rint(volume * (1000 / np.quantile(volume, 0.999))).clip(0, 32767).astype(np.int16)


def _sample_signal(rng: np.random.Generator) -> np.ndarray:
    t1, t2, pd = (RELAXATION * (1 + 0.1 * rng.standard_normal(RELAXATION.shape).clip(-2, 2))).T
    sequence = rng.integers(8)
    if sequence == 0:
        signal = compute_mprage_signal(t1, pd, ti=rng.uniform(600, 1200), flip_angle=rng.uniform(5, 12))
    elif sequence == 1:
        signal = compute_tse_signal(t1, t2, pd, tr=rng.uniform(400, 900), te=rng.uniform(8, 20))
    elif sequence == 2:
        signal = compute_tse_signal(t1, t2, pd, tr=rng.uniform(2500, 8000), te=rng.uniform(10, 130))
    elif sequence == 3:
        tr = rng.uniform(6000, 11000)
        csf = t1[TISSUES.index("csf")]
        # The inversion time at which CSF's magnetisation passes zero, within 15 %.
        ti = csf * np.log(2 / (1 + np.exp(-tr / csf))) * rng.uniform(0.85, 1.15)
        signal = compute_inversion_recovery_signal(t1, t2, pd, tr=tr, ti=ti, te=rng.uniform(80, 140))
    else:
        signal = rng.uniform(0, 1, len(TISSUES))
    signal = np.abs(signal)
    if sequence < 4:
        signal[TISSUES.index("bone")] = 0
    signal[TISSUES.index("air")] = 0
    return signal.astype(np.float32)


def _make_random_texture(shape: tuple[int, ...], power: float, rng: np.random.Generator) -> np.ndarray:
    """A random field with standard deviation 1 whose amplitude spectrum falls as ``f ** -power``, level below 1/64."""
    field = fft.rfftn(rng.standard_normal(shape, dtype=np.float32), workers=-1)
    field *= np.maximum(np.sqrt(compute_squared_frequencies(shape)), 1 / 64) ** -power
    field[0, 0, 0] = 0
    field = fft.irfftn(field, s=shape, workers=-1)
    return (field / field.std()).astype(np.float32)


def _find_brain(fractions: np.ndarray) -> np.ndarray:
    tissue = fractions[[TISSUES.index(t) for t in ("wm", "gm")]].sum(0) > 0.5
    tissue = get_largest_connected_component_mask(tissue, connectivity=1)
    # Only CSF and vessels of the sulci, not those elsewhere in the head.
    near = ndimage.binary_closing(np.pad(tissue, 4), iterations=4)[4:-4, 4:-4, 4:-4]
    inside = fractions[[TISSUES.index(t) for t in _BRAIN]].sum(0) > 0.5
    return tissue | (near & inside)
