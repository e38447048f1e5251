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
