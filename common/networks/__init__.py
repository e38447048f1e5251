"""Networks that the bundles share, one family per file."""

from .degradation import LinearDegradation, ReceiverNoise
from .discriminators import PatchDiscriminator, VGGDiscriminator
from .edsr import EDSR, DownsamplingNetwork, SliceBetween
from .interpolated import DCSRN, MDCSRN, SRCNN, VDSR, OnInterpolated, ReCNN, ReconResNet
from .interpolation import AxisInterpolation, SlabInterpolation, SliceGains, SplineInterpolation, patch_interpolation
from .kernel_gan import KernelDiscriminator, KernelGenerator, KernelSampling
from .munit import AdaptiveDecoder, AttributeEncoder, ContentEncoder, MultiScaleDiscriminator
from .onnx import OnnxNetwork
from .rdn import RDN, Cascade, GuidedRDN, cascade_of, prepare_for_inference
from .slab import SlabEncoder, SlabSuperResolver
from .steps import (
    AsImages,
    AtVoxels,
    Concatenate,
    DomainDistance,
    FixedKernel,
    GeometricEnsemble,
    GradientReversal,
    HighBands,
    ImagePool,
    SignedRange,
)
from .ts_rcan import TSRCAN, TranslatedTSRCAN, TSRCANDecoder, TSRCANDegrader
from .vgg import VGG16Features
