"""What a training, its validation and its evaluation read: one component for each way to learn."""

from .pairs import Pairs
from .thick_slices import CTGuided, InterpolatedImages, ThickSlices, Triplets

__all__ = ["CTGuided", "InterpolatedImages", "Pairs", "ThickSlices", "Triplets"]
