"""Inferers for thin slabs, cascades of networks over slices, and images in orthogonal directions."""

from .cascade import CascadeInferer, back_project
from .orthogonal import OrthogonalInferer
from .slab import SlabInferer

__all__ = ["CascadeInferer", "OrthogonalInferer", "SlabInferer", "back_project"]
