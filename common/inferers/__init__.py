"""Inferers for thin slabs."""

from .slab import SlabInferer

__all__ = ["SlabInferer"]
