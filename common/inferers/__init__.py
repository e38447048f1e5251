"""Inferers for thin slabs, and for cascades of networks over slices."""

from .cascade import CascadeInferer, back_project
from .slab import SlabInferer

__all__ = ["CascadeInferer", "SlabInferer", "back_project"]
