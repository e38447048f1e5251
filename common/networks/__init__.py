"""Networks that the bundles share, one family a file."""

from .degradation import LinearDegradation
from .discriminators import PatchDiscriminator, VGGDiscriminator
from .edsr import EDSR
from .guided_rdn import Cascade, Concatenate, GuidedRDN, prepare_for_inference
from .interpolation import SlabInterpolation, SplineInterpolation
from .kernels import FixedKernel, GradientReversal, KernelDiscriminator, KernelGenerator, KernelSampling, ReceiverNoise
from .slab import SlabEncoder, SlabSuperResolver
from .ts_rcan import TSRCANDecoder

__all__ = [
    "EDSR",
    "Cascade",
    "Concatenate",
    "FixedKernel",
    "GradientReversal",
    "GuidedRDN",
    "KernelDiscriminator",
    "KernelGenerator",
    "KernelSampling",
    "LinearDegradation",
    "PatchDiscriminator",
    "ReceiverNoise",
    "SlabEncoder",
    "SlabInterpolation",
    "SlabSuperResolver",
    "SplineInterpolation",
    "TSRCANDecoder",
    "VGGDiscriminator",
    "prepare_for_inference",
]
