"""Inferers for slabs, cascades over slices, and images in orthogonal directions; consistency with the scan."""

from .axes import AxesInferer
from .cascade import CascadeInferer, back_project
from .consistent import ConsistentInferer
from .orthogonal import OrthogonalInferer
from .slab import SlabInferer

__all__ = ["AxesInferer", "CascadeInferer", "ConsistentInferer", "OrthogonalInferer", "SlabInferer", "back_project"]
