"""Datalists, volumes in memory, slabs and cases."""

from .case import Case
from .ct import LoadCTd
from .lists.datalist import load_datalist, pair_contrasts, select_hr, select_lr, use_ct_as_hr
from .lists.groups import Datalist, Group, find_slice_axis
from .lists.spacing import check_scale, identify_slice_axis, measure_in_plane_spacing, measure_thin_slice_spacing
from .loaders.cases import CaseLoader, prepare_lr_hr
from .loaders.coordinates import CoordinateLoader, MeasuredVoxels
from .loaders.image_pairs import ImagePairLoader, InterpolatedImageLoader, TripletLoader
from .loaders.kernel_crops import KernelCropLoader, select_kernel_cases
from .loaders.slabs import PairedSlabLoader, UnpairedSlabLoader, are_axes_alike
from .loaders.slices import KernelSliceLoader, SliceLoader
from .loaders.through_plane import ThroughPlaneLoader, check_patch
from .loaders.volumes import VolumeCache
from .provenance import describe_result
from .scans import find_cases, find_scans
from .unknown_blur import BlurHRd, UnknownBlur
