"""Transforms that MONAI lacks."""

from .check import CheckHeaderd, CheckPlanesd, CheckVoxelsd
from .ct import CheckMRd, HounsfieldWindowd
from .denoise import DenoiseSlicesd, estimate_noise
from .guide import ResampleGuided, ShiftGuided
from .misalignment import RandMisalign, RandMisalignd
from .registration import RegisterHRd, RegisterLRd, register_guide
from .save import SaveVolumed
from .stage import StageTargetd
from .thick import CheckThickSlicesd, ResampleHRd, check_slice_factor
from .training_range import CheckTrainingRanged, scan_statistics, widened_range
from .volume import MakeLRd, NormaliseVolumed, RestoreVolumed, SlabAxisd, slab_permutation

__all__ = [
    "CheckHeaderd",
    "CheckMRd",
    "CheckPlanesd",
    "CheckThickSlicesd",
    "CheckTrainingRanged",
    "CheckVoxelsd",
    "DenoiseSlicesd",
    "HounsfieldWindowd",
    "MakeLRd",
    "NormaliseVolumed",
    "RandMisalign",
    "RandMisalignd",
    "RegisterHRd",
    "RegisterLRd",
    "ResampleGuided",
    "ResampleHRd",
    "RestoreVolumed",
    "SaveVolumed",
    "ShiftGuided",
    "SlabAxisd",
    "StageTargetd",
    "check_slice_factor",
    "estimate_noise",
    "register_guide",
    "scan_statistics",
    "slab_permutation",
    "widened_range",
]
