"""Data for training, validation and evaluation: one component for each way to learn."""

from .ct_guided import CTGuided
from .guided import Guided
from .in_context import UnpairedInContext
from .pairs import Pairs
from .scans_alone import ScansAlone
from .source_pairs import SourcePairs
from .thick_slices import HRImages, ThickSlices, Triplets
from .unknown_blur import UnknownBlur
from .unpaired import Unpaired
