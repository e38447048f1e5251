"""Transforms that MONAI lacks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cascade_target": ["StageTargetd"],
        "ct": ["CheckThickSlicesd"],
        "denoise": ["DenoiseSlicesd"],
        "flips": ["RandFlipHRd"],
        "guide": ["ResampleGuided", "ShiftGuided"],
        "load_stacks": ["GuideStacksd", "LoadStacksd", "ResampleToFiled", "ResampleToReferenced"],
        "make_stacks": ["MakeStacksd"],
        "misalignment": ["RandMisalignd"],
        "register": ["RegisterHRd", "RegisterLRd"],
        "scan.acquired": ["AcquiredMatrixd"],
        "scan.check": ["CheckHeaderd", "CheckMemoryd", "CheckVoxelsd", "ResizePlanesd"],
        "scan.interleaved": ["EvenSlicesd"],
        "scan.load": ["LoadScand"],
        "scan.save": ["SaveVolumed"],
        "scan.scan_statistics": ["CheckTrainingRanged", "compute_scan_statistics", "widen_range"],
        "scan.volume": ["MakeLRd", "NormaliseVolumed", "RestoreVolumed", "SliceAxisd"],
    },
)
