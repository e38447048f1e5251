"""Metrics on images and volumes in [0, 1], and the baselines they are compared with."""

from .baseline import interpolate_bicubic, interpolate_cubic
from .brightness_classes import divide_by_brightness
from .brisque import Brisque, compute_brisque_features, compute_mscn, select_slices
from .data_consistency import measure_consistency_error
from .interval import (
    Interval,
    calibrate_interval,
    draw_scores,
    estimate_error_scale,
    measure_coverage,
    measure_sparsification,
)
from .volume import compute_psnr, compute_slices_psnr, compute_slices_ssim, compute_ssim, measure_displacement
