"""Metrics on images and volumes in [0, 1], and the baselines they are compared with."""

from .baseline import interpolate_bicubic, interpolate_cubic
from .brisque import Brisque, compute_brisque_features, compute_mscn, select_slices
from .data_consistency import measure_consistency_error
from .hotelling import ChannelisedHotelling, bootstrap_auc, compute_auc
from .lesion import LesionMeasure, measure_lesions
from .volume import (
    compute_nrmse,
    compute_psnr,
    compute_slices_psnr,
    compute_slices_ssim,
    compute_ssim,
    measure_displacement,
)
