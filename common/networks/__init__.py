"""Networks that the bundles share, one family per file."""

from .contrastive import PlaceFeatures, ProjectionHeads, RandomPlaces, RandomSubgrid
from .coordinates import AverageOverSlice, CoordinateNetwork
from .degradation import LinearDegradation, ReceiverNoise
from .diffusion import DrawNoise, DrawStep, ResidualDenoiser, ResidualShift, StepUNet
from .discriminators import PatchDiscriminator, VGGDiscriminator
from .edsr import EDSR, DownsamplingNetwork, SliceBetween
from .interpolated import DCSRN, MDCSRN, SRCNN, VDSR, InterpolatedNetwork, ReCNN, ReconResNet
from .interpolation import (
    AxisInterpolation,
    AxisResampling,
    SlabInterpolation,
    SliceGains,
    SplineInterpolation,
    make_patch_interpolation,
)
from .kernel_gan import KernelDiscriminator, KernelGenerator, KernelSampling
from .munit import AdaptiveDecoder, AttributeEncoder, ContentEncoder, MultiScaleDiscriminator
from .rdn import RDN, Cascade, GuidedRDN, make_cascade, prepare_for_inference
from .slab import SlabEncoder, SlabSuperResolver
from .steps import (
    Concatenate,
    DomainDistance,
    FixedKernel,
    GeometricEnsemble,
    GradientReversal,
    HighBands,
    ImageNetwork,
    ImagePool,
    SampleAtLRVoxels,
    SelfAntiAliasing,
    SignedRange,
)
from .ts_rcan import TSRCAN, TranslatedTSRCAN, TSRCANDecoder, TSRCANDegrader
from .vgg import VGG16Features
from .wdsr import WDSR
