"""What a training, its validation and its evaluation read: one component for each way to learn."""

from .pairs import Pairs
from .unknown_blur import UnknownBlur

__all__ = ["Pairs", "UnknownBlur"]
