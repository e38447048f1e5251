"""PSNR, SSIM and displacement of a super-resolved volume, and PSNR and SSIM of its slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from monai.config.type_definitions import NdarrayOrTensor
from scipy import fft
from scipy.ndimage import fourier_shift
from skimage.metrics import structural_similarity
from skimage.registration import phase_cross_correlation

_SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
SSIM_REACH = 5  # voxels from the centre of SSIM's window to its end
_RAMP = 16  # voxels
_Values = TypeVar("_Values", torch.Tensor, np.ndarray)


def find_score_range(hr: np.ndarray) -> tuple[float, float]:
    """What scores take as 0 and 1: 0, or HR's minimum if that is negative, and its 99.9th percentile, else its maximum.

    Args:
        hr: any units.
    """
    low, high = min(float(hr.min()), 0.0), float(np.quantile(hr, 0.999))
    high = high if high > low else float(hr.max())
    return low, high if high > low else low + 1.0


def scale_to_range(volume: _Values, low: float, high: float) -> _Values:
    """The volume in which ``low`` is 0 and ``high`` 1, cut to [0, 1], as in all tables."""
    return ((volume - low) / (high - low)).clip(0, 1)


def to_array(volume: NdarrayOrTensor) -> np.ndarray:
    """Return a volume as an array of shape (X, Y, Z), without leading singleton axes."""
    array = volume.detach().cpu().float().numpy() if isinstance(volume, torch.Tensor) else np.asarray(volume)
    if array.ndim < 3 or any(size != 1 for size in array.shape[:-3]):
        raise ValueError(f"A metric takes single volumes of shape (X, Y, Z), got shape {array.shape}.")
    return array.reshape(array.shape[-3:])


def _to_pair(first: NdarrayOrTensor, second: NdarrayOrTensor) -> list[np.ndarray]:
    """Return two volumes of one shape as float32 arrays."""
    arrays = [to_array(volume).astype(np.float32, copy=False) for volume in (first, second)]
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(f"The two volumes differ in shape: {arrays[0].shape} and {arrays[1].shape}.")
    return arrays


def _compute_psnr(sr: np.ndarray, hr: np.ndarray) -> float:
    from skimage.metrics import peak_signal_noise_ratio  # here, because it loads scipy.stats, and inference needs none

    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(hr, sr, data_range=1))


def compute_psnr(sr: NdarrayOrTensor, hr: NdarrayOrTensor, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio of a volume in dB for a data range of 1, infinite for equal volumes.

    Args:
        sr: volume of shape (X, Y, Z), singleton axes before it are ignored, normalised to [0, 1].
        hr: ground truth of the same shape and range.
        mask: which voxels count, bool of shape (X, Y, Z); None for all.
    """
    sr, hr = _to_pair(sr, hr)
    return _compute_psnr(sr, hr) if mask is None else _compute_psnr(sr[mask], hr[mask])


def compute_nrmse(sr: np.ndarray, hr: np.ndarray, mask: np.ndarray | None = None) -> float:
    """The root mean square difference of two volumes over the root mean square of HR; 0 for equal volumes.

    Args:
        sr, hr: ``(X, Y, Z)``.
        mask: as for :func:`compute_psnr`.
    """
    squares = [np.square(each if mask is None else each[mask]).mean(dtype=np.float64) for each in (hr - sr, hr)]
    return float(np.sqrt(squares[0]) / np.sqrt(squares[1]))


def map_ssim(sr: NdarrayOrTensor, hr: NdarrayOrTensor) -> np.ndarray:
    """The structural similarity around each voxel whose window lies within the volume.

    Args:
        sr, hr: as for :func:`compute_psnr`.

    Returns:
        ``(X - 10, Y - 10, Z - 10)``, of which :func:`compute_ssim` is the mean.
    """
    sr, hr = _to_pair(sr, hr)
    return structural_similarity(hr, sr, full=True, **_SSIM)[1][(slice(SSIM_REACH, -SSIM_REACH),) * 3]


def compute_ssim(sr: NdarrayOrTensor, hr: NdarrayOrTensor) -> float:
    """Structural similarity of a volume: 3-D Gaussian window (sigma 1.5 voxels, 11 voxels wide), data range 1.

    scikit-image takes a quarter of the time of MONAI's ``SSIMMetric`` on a CPU and agrees with it to 1e-6.

    Args:
        sr, hr: as for :func:`compute_psnr`.

    Returns:
        Mean SSIM over the voxels whose window lies within the volume, at most 1.

    Source:
        Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE Transactions on
        Image Processing 13(4), 2004.
    """
    sr, hr = _to_pair(sr, hr)
    return float(structural_similarity(hr, sr, **_SSIM))


def compute_slices_psnr(sr: NdarrayOrTensor, hr: NdarrayOrTensor, slices: Sequence[int]) -> float:
    """Mean peak signal-to-noise ratio of single slices in dB, for a data range of 1.

    Args:
        sr, hr: as for :func:`compute_psnr`, slices along the last axis.
        slices: indices of the slices that count, from 0.

    Source:
        Iwamoto et al., Unsupervised MRI Super Resolution Using Deep External Learning and Guided Residual Dense Network
        with Multimodal Image Priors, IEEE TETCI 2022, eq. 7 and 8.
    """
    sr, hr = _to_pair(sr, hr)
    return float(np.mean([_compute_psnr(sr[..., z], hr[..., z]) for z in slices]))


def compute_slices_ssim(sr: NdarrayOrTensor, hr: NdarrayOrTensor, slices: Sequence[int]) -> float:
    """Mean structural similarity of single slices: 2-D Gaussian window (sigma 1.5, 11 pixels), data range 1.

    A slice's value is the mean over all pixels, and the slice is mirrored at its border. :func:`compute_ssim` instead
    leaves out voxels near the border.

    Args:
        sr, hr, slices: as for :func:`compute_slices_psnr`.

    Source:
        Iwamoto et al. 2022, eq. 9 and 10, see :func:`compute_slices_psnr`; Wang et al. 2004, see :func:`compute_ssim`.
    """
    sr, hr = _to_pair(sr, hr)
    maps = (structural_similarity(hr[..., z], sr[..., z], full=True, **_SSIM)[1] for z in slices)
    return float(np.mean([local.mean(dtype=np.float64) for local in maps]))


def _measure_phase_shift(sr: np.ndarray, reference: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Measure the shift of ``sr`` from ``reference`` in voxels: phase correlation in 0.7 of the LR band, windowed."""
    from scipy.signal.windows import hann  # here, because it takes long to load, and inference needs none

    spectra = []
    for volume in (reference, sr):
        volume = volume - volume.mean()
        radius = np.zeros((1, 1, 1), np.float32)
        for axis, (size, factor) in enumerate(zip(volume.shape, factors, strict=True)):
            along = [-1 if a == axis else 1 for a in range(3)]
            volume *= hann(size + 2)[1:-1].reshape(along).astype(np.float32)
            radius = radius + (2 * factor * fft.fftfreq(size)).reshape(along).astype(np.float32) ** 2
        spectrum = fft.fftn(volume, workers=-1)
        spectrum[radius > 0.7**2] = 0
        spectra.append(spectrum)
    return -phase_cross_correlation(*spectra, space="fourier", upsample_factor=100, normalization="phase")[0]


def measure_displacement(sr: NdarrayOrTensor, reference: NdarrayOrTensor, factors: Sequence[int]) -> tuple[float, ...]:
    """Sub-voxel shift of an SR volume against its input, by phase correlation.

    All frequencies have equal weight, so that neither contrast nor a bias field counts as a shift. Frequencies beyond
    0.7 of the LR band, where aliasing and the interpolation have an effect, are left out. A Hann window removes the
    borders of the field of view, which do not move with the anatomy (error on cropped heads 0.02 instead of 0.1 voxel).

    Args:
        sr: volume of shape (X, Y, Z), singleton axes before it are ignored, any units.
        reference: the input on the same grid, as from :func:`common.metrics.interpolate_cubic`.
        factors: HR voxels per LR voxel along X, Y and Z; they limit the band of the reference.

    Returns:
        Displacement along X, Y and Z in HR voxels, to 0.01: positive where SR lies at a higher index than the
        reference; NaN when either volume has no structure.

    Source:
        Guizar-Sicairos et al., Efficient subpixel image registration algorithms, Optics Letters 33(2), 2008.
    """
    sr, reference = _to_pair(sr, reference)
    if not (np.isfinite(sr).all() and np.isfinite(reference).all()):
        raise ValueError("displacement needs finite voxels.")
    # NaN means "unknown": phase correlation would report no shift for a constant volume.
    if any(np.ptp(volume) <= 1e-6 * np.abs(volume).max() for volume in (sr, reference)):
        return (float("nan"),) * 3
    shift = _measure_phase_shift(sr, reference, factors)
    voxels = np.rint(shift).astype(int)
    if voxels.any():
        # The window, which does not move, reduces the shift of anatomy that fills the field of view by some 4 %. That
        # is negligible for a fraction of a voxel, so the remaining fraction is measured.
        shift = voxels + _measure_phase_shift(np.roll(sr, -voxels, axis=(0, 1, 2)), reference, factors)
    return tuple(round(float(s), 2) + 0.0 for s in shift)


def shift_volume(volume: NdarrayOrTensor, shift: Sequence[float]) -> np.ndarray:
    """Shift a volume by fractions of voxels, by a phase ramp in k-space.

    Unlike interpolation, this does not smooth: on volumes with noise, a cubic spline alone gains up to 2 dB. Beyond the
    field of view the volume falls to 0 over 16 voxels.

    Args:
        volume: volume of shape (X, Y, Z), singleton axes before it are ignored, any units.
        shift: voxels along X, Y and Z, towards a higher index where positive; an axis with 0 is left as it is.

    Returns:
        The volume at the same voxels.
    """
    array = to_array(volume).astype(np.float32, copy=False)
    if not any(shift):
        return array
    widths = [_RAMP if voxels else 0 for voxels in shift]
    spectrum = fft.fftn(np.pad(array, [(w, w) for w in widths], mode="linear_ramp"), workers=-1)
    shifted = fft.ifftn(fourier_shift(spectrum, shift), workers=-1).real
    return shifted[tuple(slice(w, w + n) for w, n in zip(widths, array.shape, strict=True))]
