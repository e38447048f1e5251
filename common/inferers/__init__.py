"""Inferers: slabs, slices, orthogonal directions, agreement with a scan, training on a scan, classical methods."""

from .adapted import AdaptedInferer
from .axes import AxesInferer
from .cascade import CascadeInferer, back_project
from .checked import CheckedInferer
from .classical import SplineInferer, TotalVariationInferer, ZeroFillingInferer
from .consistent import ConsistentInferer
from .ensemble import EnsembleInferer
from .interpolated import InterpolatedInferer
from .multi_stack import StacksInferer
from .orthogonal import OrthogonalInferer
from .slab import SlabInferer
from .slice_interpolation import BetweenInferer
from .zero_shot import ZeroShotInferer
