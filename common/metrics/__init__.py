"""Metrics on images and volumes in [0, 1], and the baselines they are compared with."""

from .agreement import disagreement
from .baseline import bicubic, cubic
from .brisque import Brisque, brisque_features, mscn
from .volume import centre_slice_psnr, centre_slice_ssim, displacement, psnr, ssim
