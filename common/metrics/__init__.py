"""Metrics on images and volumes in [0, 1], and the baselines they are compared with."""

from .baseline import interpolate_bicubic, interpolate_cubic
from .brisque import Brisque, compute_brisque_features, compute_mscn, select_slices
from .data_consistency import measure_consistency_error
from .repeatability import correlate_within, measure_difference, select_band
from .volume import compute_psnr, compute_slices_psnr, compute_slices_ssim, compute_ssim, measure_displacement
