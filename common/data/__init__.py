"""Datalists, volumes in memory, slabs and cases."""

from .cases import CaseFailure, CaseLoader, check_scale, find_images, prepare_lr_hr
from .datalist import load_datalist, write_datalist
from .slabs import PairedSlabLoader, UnpairedSlabLoader
from .volumes import VolumeCache

__all__ = [
    "CaseFailure",
    "CaseLoader",
    "PairedSlabLoader",
    "UnpairedSlabLoader",
    "VolumeCache",
    "check_scale",
    "find_images",
    "load_datalist",
    "prepare_lr_hr",
    "write_datalist",
]
