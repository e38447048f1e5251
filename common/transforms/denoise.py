"""Denoise LR scans, because a GAN would learn noise as part of the degradation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from skimage.restoration import denoise_nl_means

from ..geometry.robust import SIGMA_PER_MAD
from ..physics.noise import compute_tissue_details

# Windows of 5 x 5 and 21 x 21 voxels. Of 3, 5 and 7 voxels, and of 11 and 21, these were the best on phantoms with
# Rician noise of 2 and 5% of the tissue.
_PATCH_SIZE, _PATCH_DISTANCE = 5, 10
# Noise times this is the filter's cut-off; scikit-image's advice for its fast mode, and the best of 0.4, 0.6 and 0.8.
_STRENGTH = 0.8


class DenoiseSlicesd(MapTransform):
    """Denoise a volume by non-local means, slice by slice across its last axis: scikit-image, fast mode.

    All slices are smoothed alike. Denoise before resampling: smooth noise is not recognised.

    Args:
        keys: of volumes ``(1, X, Y, Z)`` in any range, the slices along the last axis.
        enabled: whether to denoise.

    References:
        Buades et al., Non-Local Means Denoising, Image Processing On Line 2011.
    """

    def __init__(self, keys: KeysCollection, enabled: bool = True, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.enabled = enabled

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.enabled else ():
            volume = torch.as_tensor(d[key])
            # float64, because the fast mode sums squares over a slice before it subtracts them.
            slices = volume[0].movedim(-1, 0).double().numpy().copy()
            sigma = estimate_noise(slices)
            options = {"h": _STRENGTH * sigma, "sigma": sigma, "preserve_range": True}
            for i, image in enumerate(slices if sigma > 0 else ()):
                slices[i] = denoise_nl_means(image, _PATCH_SIZE, _PATCH_DISTANCE, **options)
            denoised = torch.from_numpy(slices).movedim(0, -1)[None].float().contiguous()
            d[key] = MetaTensor(denoised).copy_meta_from(volume)
        return d


def estimate_noise(slices: np.ndarray) -> float:
    """The standard deviation of the noise in the tissue of a volume.

    For each slice: the median absolute value of the diagonal details in the tissue
    (:func:`common.physics.noise.compute_tissue_details`), times 1.4826 (Donoho and Johnstone 1994, section 4.2).
    The result is the median over the slices, so slices with artefacts do not count.

    Args:
        slices: volume ``(Z, X, Y)`` in float64.
    """
    details, tissue = compute_tissue_details(slices, (1, 2))
    if not tissue.any():
        return 0.0
    medians = [np.median(np.abs(detail[mask])) for detail, mask in zip(details, tissue, strict=True) if mask.any()]
    return float(np.median(medians) * SIGMA_PER_MAD)
