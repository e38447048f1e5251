"""Combine several thick stacks of one head into one volume: registration, thickness, weighting and data consistency."""

from .combination import BrightnessField, combine_in_k_space, measure_likeness
from .guide import GuidingEdges
from .least_squares import enforce_data_consistency
from .motion import Motion, estimate_motion, estimate_slice_motions, estimate_thickness, make_rigid_matrix
from .operator import SplineResampling, StackOperator, compute_spline_coefficients, make_cubic_grid, sample_spline
from .thin import ThinSliceNetworks, make_thin_slice_network
