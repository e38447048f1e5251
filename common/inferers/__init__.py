"""Inferers: slabs, slices, orthogonal directions, data consistency with a scan, training on a scan, classical
methods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapted": ["AdaptedInferer"],
        "cascade": ["CascadeInferer"],
        "classical": ["SplineInferer", "TotalVariationInferer", "ZeroFillingInferer"],
        "consistent": ["CheckedInferer", "ConsistentInferer"],
        "coordinates": ["CoordinateInferer"],
        "diffusion": ["ResidualShiftInferer"],
        "images": [
            "AntiAliasingInferer",
            "EnsembleInferer",
            "InterpolatedInferer",
            "OrthogonalInferer",
            "SliceInsertionInferer",
            "ZeroShotInferer",
        ],
        "joint_tv": ["JointTVInferer"],
        "multi_contrast": ["ExamInferer"],
        "multi_stack": ["StacksInferer"],
        "slab": ["AxesInferer", "SlabInferer"],
    },
)
