"""Combine several thick stacks of one exam into one volume: registration, brightness, motion and data consistency."""

from .brightness import BrightnessField, estimate_slice_gains
from .combination import combine_in_k_space
from .fitting import FittedStack, fit_stacks, make_measurements, reconstruct
from .guide import GuidingEdges
from .joint_tv import MeasuredContrast, minimise_joint_tv
from .least_squares import enforce_data_consistency
from .left_out import LeftOutStack, SeenVolume, estimate_interval, find_data
from .operator import StackOperator
from .slices import estimate_motions, measure_residuals, weigh_slices
from .thickness import estimate_thickness
from .thin import ThinSliceNetworks, make_thin_slice_network
