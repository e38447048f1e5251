"""Datalists, volumes in memory, slabs and cases."""

from .cases import (
    CaseFailure,
    CaseLoader,
    as_lr,
    check_scale,
    find_images,
    find_pairs,
    in_plane_spacing,
    prepare_lr_hr,
    slice_axis_of,
    thin_slice_spacing,
)
from .datalist import cross_validation, load_datalist, only_case
from .kernel_crops import KernelCropLoader, check_target, kernel_cases
from .slabs import PairedSlabLoader, UnpairedSlabLoader
from .slices import KernelSliceLoader, SliceLoader
from .through_plane import ThroughPlaneLoader, check_patch
from .volumes import VolumeCache
from .write_datalist import write_datalist

__all__ = [
    "CaseFailure",
    "CaseLoader",
    "KernelCropLoader",
    "KernelSliceLoader",
    "PairedSlabLoader",
    "SliceLoader",
    "ThroughPlaneLoader",
    "UnpairedSlabLoader",
    "VolumeCache",
    "as_lr",
    "check_patch",
    "check_scale",
    "check_target",
    "cross_validation",
    "find_images",
    "find_pairs",
    "in_plane_spacing",
    "kernel_cases",
    "load_datalist",
    "only_case",
    "prepare_lr_hr",
    "slice_axis_of",
    "thin_slice_spacing",
    "write_datalist",
]
