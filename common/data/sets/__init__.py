"""What a training, its validation and its evaluation read: one component for each way to learn."""

from .guided import Guided
from .pairs import Pairs

__all__ = ["Guided", "Pairs"]
