"""Datalists, volumes in memory, slabs and cases."""

from .case import Case
from .ct import LoadCTd
from .lists.datalist import as_hr, as_lr, load_datalist, only_hr, with_contrasts
from .lists.groups import Datalist, Group, find_slice_axis
from .lists.scans import find_scans
from .lists.spacing import check_scale, in_plane_spacing, slice_axis_of, thin_slice_spacing
from .loaders.cases import CaseLoader, prepare_lr_hr
from .loaders.image_pairs import ImagePairLoader, TripletLoader
from .loaders.kernel_crops import KernelCropLoader, kernel_cases
from .loaders.slabs import PairedSlabLoader, UnpairedSlabLoader, across_any_axis
from .loaders.slices import KernelSliceLoader, SliceLoader
from .loaders.through_plane import ThroughPlaneLoader, check_patch
from .loaders.volumes import VolumeCache
from .scans import find_cases, find_exams
from .unknown_blur import BlurHRd, UnknownBlur
