"""Transforms that MONAI lacks."""

from .check import CheckHeaderd, CheckVoxelsd
from .misalignment import RandMisalign, RandMisalignd
from .registration import RegisterHRd
from .save import SaveVolumed
from .volume import MakeLRd, NormaliseVolumed, RestoreVolumed, SlabAxisd, slab_permutation

__all__ = [
    "CheckHeaderd",
    "CheckVoxelsd",
    "MakeLRd",
    "NormaliseVolumed",
    "RandMisalign",
    "RandMisalignd",
    "RegisterHRd",
    "RestoreVolumed",
    "SaveVolumed",
    "SlabAxisd",
    "slab_permutation",
]
