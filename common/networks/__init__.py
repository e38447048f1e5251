"""Networks that the bundles share, one family a file."""

from .degradation import LinearDegradation
from .discriminators import PatchDiscriminator, VGGDiscriminator
from .interpolation import SlabInterpolation
from .slab import SlabEncoder, SlabSuperResolver
from .ts_rcan import TSRCANDecoder

__all__ = [
    "LinearDegradation",
    "PatchDiscriminator",
    "SlabEncoder",
    "SlabInterpolation",
    "SlabSuperResolver",
    "TSRCANDecoder",
    "VGGDiscriminator",
]
