"""Inferers: slabs, slices, orthogonal directions, agreement with a scan, training on it, and those without network."""

from .adapted import AdaptedInferer
from .axes import AxesInferer
from .between import BetweenInferer
from .cascade import CascadeInferer, back_project
from .checked import CheckedInferer
from .consistent import ConsistentInferer
from .ensemble import EnsembleInferer
from .interpolated import InterpolatedInferer
from .orthogonal import OrthogonalInferer
from .slab import SlabInferer
from .without_network import SplineInferer, TotalVariationInferer, ZeroFillingInferer

__all__ = [
    "AdaptedInferer",
    "AxesInferer",
    "BetweenInferer",
    "CascadeInferer",
    "CheckedInferer",
    "ConsistentInferer",
    "EnsembleInferer",
    "InterpolatedInferer",
    "OrthogonalInferer",
    "SlabInferer",
    "SplineInferer",
    "TotalVariationInferer",
    "ZeroFillingInferer",
    "back_project",
]
