"""Metrics on images and volumes in [0, 1], and the baselines they are compared with."""

from .baseline import bicubic, cubic
from .brisque import Brisque, brisque_features, counting_slices, mscn
from .data_consistency import disagreement
from .volume import displacement, psnr, slices_psnr, slices_ssim, ssim
