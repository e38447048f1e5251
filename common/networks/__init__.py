"""Networks that the bundles share, one family a file."""

from .degradation import LinearDegradation
from .discriminators import PatchDiscriminator, VGGDiscriminator
from .guided_rdn import Cascade, Concatenate, GuidedRDN, prepare_for_inference
from .interpolation import SlabInterpolation, SplineInterpolation
from .slab import SlabEncoder, SlabSuperResolver
from .ts_rcan import TSRCANDecoder

__all__ = [
    "Cascade",
    "Concatenate",
    "GuidedRDN",
    "LinearDegradation",
    "PatchDiscriminator",
    "SlabEncoder",
    "SlabInterpolation",
    "SlabSuperResolver",
    "SplineInterpolation",
    "TSRCANDecoder",
    "VGGDiscriminator",
    "prepare_for_inference",
]
