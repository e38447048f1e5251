"""Combine several thick stacks of one head into one volume: registration, thickness, weighting and agreement."""

from .combination import Brightness, in_k_space, likeness
from .guide import GuidingEdges
from .least_squares import agree
from .motion import Motion, found_motion, found_slice_motions, found_thickness, rigid
from .operator import Resampling, StackOperator, cubes_over, sampled, spline_coefficients
from .thin import ThinSliceNetworks, thin_slice_network
