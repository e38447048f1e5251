"""Inferers: slabs, slices, orthogonal directions, data consistency with a scan, training on a scan, classical
methods."""

from .adapted import AdaptedInferer
from .cascade import CascadeInferer, back_project
from .classical import SplineInferer, TotalVariationInferer, ZeroFillingInferer
from .consistent import CheckedInferer, ConsistentInferer
from .coordinates import CoordinateInferer
from .diffusion import ResidualShiftInferer
from .images import (
    AntiAliasingInferer,
    EnsembleInferer,
    InterpolatedInferer,
    OrthogonalInferer,
    SliceInsertionInferer,
    ZeroShotInferer,
)
from .joint_tv import JointTVInferer
from .multi_contrast import ExamInferer
from .multi_stack import StacksInferer
from .slab import AxesInferer, SlabInferer
