"""Combine several thick stacks of one exam into one volume: registration, brightness, motion and data consistency."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "brightness": ["BrightnessField", "estimate_slice_gains"],
        "combination": ["combine_in_k_space"],
        "fitting": ["FittedStack"],
        "guide": ["GuidingEdges"],
        "joint_tv": ["MeasuredContrast", "minimise_joint_tv"],
        "least_squares": ["enforce_data_consistency"],
        "left_out": ["estimate_interval"],
        "operator": ["StackOperator"],
        "slices": ["estimate_motions", "measure_residuals", "weigh_slices"],
        "thickness": ["estimate_thickness"],
        "thin": ["ThinSliceNetworks", "make_thin_slice_network"],
    },
)
