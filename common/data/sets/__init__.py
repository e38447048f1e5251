"""What a training, its validation and its evaluation read: one component for each way to learn."""

from .guided import Guided
from .in_context import UnpairedInContext
from .pairs import Pairs
from .scans_alone import ScansAlone
from .source_pairs import SourcePairs
from .thick_slices import CTGuided, HRImages, ThickSlices, Triplets
from .unknown_blur import UnknownBlur
from .unpaired import Unpaired

__all__ = [
    "CTGuided",
    "Guided",
    "HRImages",
    "Pairs",
    "ScansAlone",
    "SourcePairs",
    "ThickSlices",
    "Triplets",
    "UnknownBlur",
    "Unpaired",
    "UnpairedInContext",
]
