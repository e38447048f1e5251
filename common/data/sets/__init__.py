"""What a training, its validation and its evaluation read: one component for each way to learn."""

from .pairs import Pairs
from .thick_slices import InterpolatedImages, ThickSlices, Triplets

__all__ = ["InterpolatedImages", "Pairs", "ThickSlices", "Triplets"]
