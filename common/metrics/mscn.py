"""Local statistics of images: coefficients (MSCN) whose distributions differ with sharpness and noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

AIR = 0.05  # a pixel whose local mean is below this part of full scale is air
TISSUE = 0.05  # a slice counts when at least this part of its pixels is not air


def _compute_local_statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the image scaled to 8 bits, its local mean (eq. 5) and its local standard deviation (eq. 6)."""
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype.kind != "f" or not np.isfinite(image).all():
        raise ValueError(
            f"MSCN takes 2-D images of finite floats in [0, 1], found {image.shape} of {image.dtype}, or values "
            "that are not finite; give single slices, scaled."
        )
    image = 255 * image.astype(np.float64)

    def filter_mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, 1, radius=3, mode="nearest")

    mu = filter_mean(image)
    # Rounding leaves a flat region some 1e-11 on either side of zero.
    return image, mu, np.sqrt(np.maximum(filter_mean(image**2) - mu**2, 0))


def compute_mscn(image: np.ndarray) -> np.ndarray:
    """Mean subtracted contrast normalised coefficients: ``(I - mu) / (sigma + 1)``.

    ``mu`` and ``sigma`` are the local mean and standard deviation in a Gaussian window (7x7 pixels, standard deviation
    1). The image is first scaled by 255. Beyond its border the outermost pixels are repeated.

    Args:
        image: floats of shape (H, W), in [0, 1]; brighter pixels (vessels, fat) are taken as they are.

    Returns:
        Coefficients of shape (H, W), around 0.

    Source:
        Huang et al. 2021, eq. 4 to 6; Mittal et al., No-reference image quality assessment in the spatial
        domain, IEEE Transactions on Image Processing 21(12), 2012.
    """
    image, mu, sigma = _compute_local_statistics(image)
    return (image - mu) / (sigma + 1)


def mask_tissue(image: np.ndarray) -> np.ndarray:
    """Mask the pixels of an image, as for :func:`compute_mscn`, that are not air: their local mean is 5 % of full
    scale."""
    return _compute_local_statistics(image)[1] >= AIR * 255


def select_slices(volume: np.ndarray) -> list[int]:
    """The slices of a volume (X, Y, Z) in [0, 1] of which at least 5 % is :func:`mask_tissue`; at least one."""
    slices = [z for z in range(volume.shape[-1]) if mask_tissue(volume[..., z]).mean() >= TISSUE]
    if not slices:
        raise ValueError(
            f"no slice counts: none of {volume.shape[-1]} has {AIR:.0%} of full scale on {TISSUE:.0%} of its pixels; "
            "the volume is (nearly) all air, or not normalised to [0, 1]."
        )
    return slices
