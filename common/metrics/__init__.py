"""Metrics on images and volumes in [0, 1], and the baselines they are compared with."""

from .added_detail import measure_added_share, split_measured
from .baseline import interpolate_bicubic, interpolate_cubic
from .brightness_classes import divide_by_brightness
from .data_consistency import measure_scan_difference
from .interval import Interval, estimate_error_scale
from .mscn import compute_mscn, select_slices
from .volume import (
    compute_psnr,
    compute_slices_psnr,
    compute_slices_ssim,
    compute_ssim,
    measure_displacement,
    shift_volume,
)
