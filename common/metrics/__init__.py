"""Metrics on images and volumes in [0, 1], and the baselines they are compared with."""

from .added_detail import measure_added_share, split_measured
from .baseline import interpolate_bicubic, interpolate_cubic
from .brightness_classes import divide_by_brightness
from .data_consistency import measure_consistency_error, measure_scan_difference
from .fourier_ring import find_agreeing_frequencies
from .hotelling import ChannelisedHotelling, compute_auc, estimate_auc_deviation
from .interval import (
    Interval,
    calibrate_interval,
    draw_scores,
    estimate_error_scale,
    measure_coverage,
    measure_sparsification,
)
from .lesion import LesionMeasure, measure_lesions
from .mscn import compute_mscn, select_slices
from .repeatability import correlate_within, measure_difference, select_band
from .volume import (
    compute_nrmse,
    compute_psnr,
    compute_slices_psnr,
    compute_slices_ssim,
    compute_ssim,
    measure_displacement,
    shift_volume,
)
