"""Datalists, volumes in memory, slabs and cases."""

from .cases import CaseFailure, CaseLoader, check_scale, find_images, find_pairs, prepare_lr_hr
from .datalist import cross_validation, load_datalist, only_case, write_datalist
from .slabs import PairedSlabLoader, UnpairedSlabLoader
from .slices import SliceLoader
from .volumes import VolumeCache

__all__ = [
    "CaseFailure",
    "CaseLoader",
    "PairedSlabLoader",
    "SliceLoader",
    "UnpairedSlabLoader",
    "VolumeCache",
    "check_scale",
    "cross_validation",
    "find_images",
    "find_pairs",
    "load_datalist",
    "only_case",
    "prepare_lr_hr",
    "write_datalist",
]
