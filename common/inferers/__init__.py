"""Inferers for slabs, cascades over slices, and images in orthogonal directions; agreement with the scan."""

from .axes import AxesInferer
from .cascade import CascadeInferer, back_project
from .checked import CheckedInferer
from .consistent import ConsistentInferer
from .orthogonal import OrthogonalInferer
from .slab import SlabInferer

__all__ = [
    "AxesInferer",
    "CascadeInferer",
    "CheckedInferer",
    "ConsistentInferer",
    "OrthogonalInferer",
    "SlabInferer",
    "back_project",
]
