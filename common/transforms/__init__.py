"""Transforms that MONAI lacks."""

from .check import CheckHeaderd, CheckVoxelsd
from .guide import ResampleGuided, ShiftGuided
from .misalignment import RandMisalign, RandMisalignd
from .registration import RegisterHRd, register_guide
from .save import SaveVolumed
from .stage import StageTargetd
from .volume import MakeLRd, NormaliseVolumed, RestoreVolumed, SlabAxisd, slab_permutation

__all__ = [
    "CheckHeaderd",
    "CheckVoxelsd",
    "MakeLRd",
    "NormaliseVolumed",
    "RandMisalign",
    "RandMisalignd",
    "RegisterHRd",
    "ResampleGuided",
    "RestoreVolumed",
    "SaveVolumed",
    "ShiftGuided",
    "SlabAxisd",
    "StageTargetd",
    "register_guide",
    "slab_permutation",
]
