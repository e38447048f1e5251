"""Datalists, volumes in memory, slabs and cases."""

from .lists.datalist import as_hr, as_lr, check_misaligned, cross_validation, load_datalist, only_case, only_hr
from .lists.scans import find_images, find_pairs, find_scans, named
from .lists.sharding import own_share, to_do
from .lists.spacing import check_scale, in_plane_spacing, slice_axis_of, thin_slice_spacing
from .loaders.cases import CaseFailure, CaseLoader, prepare_lr_hr
from .loaders.image_pairs import ImagePairLoader
from .loaders.kernel_crops import KernelCropLoader, check_target, kernel_cases
from .loaders.slabs import PairedSlabLoader, UnpairedSlabLoader
from .loaders.slices import KernelSliceLoader, SliceLoader
from .loaders.through_plane import ThroughPlaneLoader, check_patch
from .loaders.triplets import TripletLoader
from .loaders.volumes import VolumeCache
from .scans import GuidedScans, Scans, ThickScans
from .sets import (
    CTGuided,
    Guided,
    HRImages,
    Pairs,
    ScansAlone,
    SourcePairs,
    ThickSlices,
    Triplets,
    UnknownBlur,
    Unpaired,
    UnpairedInContext,
)

__all__ = [
    "CTGuided",
    "CaseFailure",
    "CaseLoader",
    "Guided",
    "GuidedScans",
    "HRImages",
    "ImagePairLoader",
    "KernelCropLoader",
    "KernelSliceLoader",
    "PairedSlabLoader",
    "Pairs",
    "Scans",
    "ScansAlone",
    "SliceLoader",
    "SourcePairs",
    "ThickScans",
    "ThickSlices",
    "ThroughPlaneLoader",
    "TripletLoader",
    "Triplets",
    "UnknownBlur",
    "Unpaired",
    "UnpairedInContext",
    "UnpairedSlabLoader",
    "VolumeCache",
    "as_hr",
    "as_lr",
    "check_misaligned",
    "check_patch",
    "check_scale",
    "check_target",
    "cross_validation",
    "find_images",
    "find_pairs",
    "find_scans",
    "in_plane_spacing",
    "kernel_cases",
    "load_datalist",
    "named",
    "only_case",
    "only_hr",
    "own_share",
    "prepare_lr_hr",
    "slice_axis_of",
    "thin_slice_spacing",
    "to_do",
]
