"""Signal of simulated heads: tissue parameters, MPRAGE and TSE equations, Hounsfield units, bias field, noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import fft, ndimage

#: T1 (ms), T2 (ms) and proton density relative to water, at 3 T; mean Hounsfield units and their spread between
#: subjects, in the usual clinical ranges.
#:
#: White and grey matter: Wansapura et al., J Magn Reson Imaging 9:531-538 (1999). Blood: Stanisz et al., Magn Reson Med
#: 54:507-512 (2005). Marrow, subcutaneous fat and muscle: Gold et al., AJR 183:343-351 (2004). CSF: T1 of Lin et al.,
#: Proc ISMRM 9:1391 (2001), T2 about 2 s as in Spijkerman et al., MAGMA 31:415-424 (2018). Skin has no 3 T reference
#: here and is given muscle's T1 with a shorter T2 and less water. Densities are typical values; those of fat and marrow
#: count what is left after the dephasing of fat's spectral peaks. The T2 of cortical bone is below a millisecond.
PROPERTIES = {
    "air": (1.0, 1.0, 0.0, -1000.0, 0.0),
    "wm": (832.0, 79.6, 0.70, 28.0, 1.5),
    "gm": (1331.0, 110.0, 0.82, 38.0, 1.5),
    "csf": (4163.0, 2000.0, 1.00, 7.0, 1.5),
    "blood": (1932.0, 275.0, 0.85, 45.0, 3.0),
    "bone": (300.0, 0.5, 0.10, 1200.0, 120.0),
    "marrow": (365.0, 133.0, 0.40, 450.0, 80.0),
    "fat": (371.0, 133.0, 0.55, -95.0, 6.0),
    "muscle": (1420.0, 31.7, 0.75, 55.0, 4.0),
    "skin": (1420.0, 28.0, 0.65, 45.0, 4.0),
}
#: Order of the tissue axis of every fraction map in ``common.data.simulation.anatomy``.
TISSUES = tuple(PROPERTIES)
RELAXATION, HOUNSFIELD = np.split(np.array(list(PROPERTIES.values())), [3], axis=1)
CT_NOISE = 5.0  # standard deviation in Hounsfield units
CONTRASTS = ("t1w", "t2w", "ct")
_TR, _ECHO_SPACING, _PULSES = 2300.0, 7.1, 160  # of MPRAGE: ms between inversions and between pulses, pulses


def compute_mprage_signal(t1: np.ndarray, pd: np.ndarray, ti: float = 900.0, flip_angle: float = 9.0) -> np.ndarray:
    """Longitudinal steady-state signal of MPRAGE at the centre of k-space (signed, before the magnitude).

    An inversion every 2300 ms, then a train of 160 small flip angles 7.1 ms apart, its middle ``ti`` after the
    inversion. With d = exp(-7.1 / T1) and m = d cos(flip_angle), magnetisation in the train goes from M1 towards
    M* = PD (1 - d) / (1 - m) as M* + (M1 - M*) m^n; the steady state follows from periodicity.

    Args:
        t1: longitudinal relaxation times in ms.
        pd: proton densities relative to water, same shape.
        ti: time from the inversion to the middle of the train in ms.
        flip_angle: flip angle in degrees.

    Returns:
        Signal relative to the proton density of water, same shape.

    Source:
        Deichmann et al., NeuroImage 12:112-127 (2000); Wang et al., PLoS ONE 9:e96899 (2014).
    """
    before = ti - _ECHO_SPACING * _PULSES / 2
    after = _TR - before - _ECHO_SPACING * _PULSES
    theta = np.deg2rad(flip_angle)
    d, g, p = (np.exp(-t / t1) for t in (_ECHO_SPACING, before, after))
    m = d * np.cos(theta)
    m_star = pd * (1 - d) / (1 - m)
    m_n = m**_PULSES
    equilibrium = (pd * (1 - p) + p * (m_star * (1 - m_n) + m_n * pd * (1 - g))) / (1 + p * g * m_n)
    start = pd * (1 - g) - g * equilibrium
    return np.sin(theta) * (m_star + (start - m_star) * m ** (_PULSES // 2))


def compute_tse_signal(
    t1: np.ndarray, t2: np.ndarray, pd: np.ndarray, tr: float = 4500.0, te: float = 95.0
) -> np.ndarray:
    """Turbo spin-echo signal, PD (1 - exp(-TR / T1)) exp(-TE / T2), relative to water's proton density.

    Args:
        t1, t2: longitudinal and transverse relaxation times in ms.
        pd: proton densities relative to water, same shape.
        tr: repetition time in ms.
        te: effective echo time in ms.
    """
    return pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


def compute_inversion_recovery_signal(
    t1: np.ndarray, t2: np.ndarray, pd: np.ndarray, tr: float, ti: float, te: float
) -> np.ndarray:
    """Signed inversion-recovery spin-echo signal, PD (1 - 2 exp(-TI / T1) + exp(-TR / T1)) exp(-TE / T2).

    Args:
        t1, t2, pd, tr, te: as for :func:`compute_tse_signal`.
        ti: inversion time in ms.
    """
    return pd * (1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1)) * np.exp(-te / t2)


def sample_tissue_signals(contrast: str, rng: np.random.Generator) -> np.ndarray:
    """Signal of every tissue of one subject in one contrast.

    T1, T2 and proton density vary by 2 % (one standard deviation) between subjects, Hounsfield units as in the table.
    Flowing blood gives no TSE signal (flow void).

    Args:
        contrast: "t1w", "t2w" or "ct".
        rng: the subject's random generator.

    Returns:
        One value per entry of ``TISSUES``: MR scaled so that the brighter of white and grey matter is 1000, CT in
        Hounsfield units.
    """
    if contrast == "ct":
        return HOUNSFIELD[:, 0] + HOUNSFIELD[:, 1] * rng.standard_normal(len(TISSUES)).clip(-2, 2)
    t1, t2, pd = (RELAXATION * (1 + 0.02 * rng.standard_normal(RELAXATION.shape).clip(-2, 2))).T
    if contrast == "t1w":
        signal = compute_mprage_signal(t1, pd)
        signal[TISSUES.index("bone")] = 0.0
    else:
        signal = compute_tse_signal(t1, t2, pd)
        signal[TISSUES.index("blood")] = 0.0
    return signal * (1000.0 / max(signal[TISSUES.index("wm")], signal[TISSUES.index("gm")]))


def make_random_bias_field(shape: tuple[int, ...], amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth multiplicative coil sensitivity, float32 of ``shape``, at most ``amplitude`` (in [0, 1)) off 1."""
    # The cubic spline keeps the second derivative continuous: no grid of the control points shows in the image.
    field = ndimage.zoom(rng.standard_normal((4, 4, 4)), 4, order=3)
    field -= field.mean()
    field *= amplitude / np.abs(field).max()
    return 1 + upsample(field.astype(np.float32), shape)


def compute_squared_frequencies(shape: Sequence[int], spacing: float = 1.0) -> np.ndarray:
    """Squares of the frequencies of a real FFT of this shape, float32; ``spacing`` is that of the voxels."""
    axes = [*(fft.fftfreq(size, spacing) for size in shape[:2]), fft.rfftfreq(shape[2], spacing)]
    x, y, z = ((axis.astype(np.float32) ** 2).reshape(np.roll((-1, 1, 1), i)) for i, axis in enumerate(axes))
    return x + y + z


def upsample(field: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Trilinear interpolation of a float32 field (X, Y, Z) or (C, X, Y, Z) to a spatial shape, corner on corner."""
    tensor = torch.from_numpy(np.ascontiguousarray(field)).reshape(1, -1, *field.shape[-3:])
    out = torch.nn.functional.interpolate(tensor, size=tuple(shape), mode="trilinear", align_corners=True)
    return out.numpy().reshape(*field.shape[:-3], *shape)


def simulate_acquisition(
    fractions: np.ndarray, contrast: str, rng: np.random.Generator, noise: float = 0.0125, bias: float = 0.2
) -> np.ndarray:
    """Scan a head: mix the tissues' signals; MR gets a bias field and Rician noise, CT Gaussian noise.

    Args:
        fractions: tissue fractions of shape (len(TISSUES), X, Y, Z), summing to 1.
        contrast: "t1w", "t2w" or "ct".
        rng: the subject's random generator for this contrast.
        noise: standard deviation of each of the two MR noise channels, as a fraction of the brighter of white and grey
            matter, in [0, 1); the CT noise is left out with 0.
        bias: largest deviation of the MR bias field from 1, in [0, 1).

    Returns:
        int16 array of shape (X, Y, Z): MR with the brighter of white and grey matter at about 1000 (times the bias
        field), CT in Hounsfield units.
    """
    signal = sample_tissue_signals(contrast, rng).astype(np.float32)
    shape = fractions.shape[1:]
    volume = np.tensordot(signal, fractions, axes=1)
    if contrast == "ct":
        if noise:
            volume += CT_NOISE * rng.standard_normal(shape, dtype=np.float32)
        return np.rint(volume).clip(-1024, 3071).astype(np.int16)
    volume *= make_random_bias_field(shape, bias, rng)
    if noise:
        # The magnitude of a complex signal with independent Gaussian noise in both channels is Rician.
        volume += 1000 * noise * rng.standard_normal(shape, dtype=np.float32)
        volume = np.hypot(volume, 1000 * noise * rng.standard_normal(shape, dtype=np.float32))
    return np.rint(np.abs(volume)).clip(0, 32767).astype(np.int16)
