"""Metrics on images and volumes in [0, 1], and the baselines they are compared with."""

from .agreement import disagreement
from .baseline import bicubic, cubic
from .brisque import Brisque, brisque_features, counting_slices, mscn
from .volume import displacement, psnr, slices_psnr, slices_ssim, ssim
