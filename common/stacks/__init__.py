"""Combine several thick stacks of one head into one volume: registration, thickness, weighting and agreement."""

from .brightness import Brightness
from .combination import in_k_space
from .contrast import likeness
from .guide import GuidingEdges
from .least_squares import agree
from .motion import Motion, found_motion, found_slice_motions, rigid
from .operator import StackOperator
from .resampling import Resampling, cubes_over, sampled, spline_coefficients
from .thickness import found_thickness
from .thin import ThinSliceNetworks, thin_slice_network

__all__ = [
    "Brightness",
    "GuidingEdges",
    "Motion",
    "Resampling",
    "StackOperator",
    "ThinSliceNetworks",
    "agree",
    "cubes_over",
    "found_motion",
    "found_slice_motions",
    "found_thickness",
    "in_k_space",
    "likeness",
    "rigid",
    "sampled",
    "spline_coefficients",
    "thin_slice_network",
]
