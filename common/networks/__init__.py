"""Networks that the bundles share, one family per file."""

from .cyclegan import AtVoxels, ImagePool
from .dasr import DomainDistance, HighBands
from .dcsrn import DCSRN, MDCSRN
from .degradation import LinearDegradation, ReceiverNoise
from .discriminators import PatchDiscriminator, VGGDiscriminator
from .dsn import DownsamplingNetwork
from .edsr import EDSR
from .ensemble import GeometricEnsemble
from .guided_rdn import Cascade, Concatenate, GuidedRDN, cascade_of, prepare_for_inference
from .interpolated import OnInterpolated
from .interpolation import AxisInterpolation, SlabInterpolation, SplineInterpolation, patch_interpolation
from .kernel_gan import (
    FixedKernel,
    GradientReversal,
    KernelDiscriminator,
    KernelGenerator,
    KernelSampling,
)
from .munit import AdaptiveDecoder, AttributeEncoder, ContentEncoder, MultiScaleDiscriminator
from .onnx import OnnxNetwork
from .rdn import RDN, SignedRange
from .recnn import ReCNN
from .recon_resnet import ReconResNet
from .slab import AsImages, SlabEncoder, SlabSuperResolver
from .slice_gains import SliceGains
from .srcnn import SRCNN
from .ts_rcan import TSRCAN, TranslatedTSRCAN, TSRCANDecoder, TSRCANDegrader
from .tscn import SliceBetween
from .vdsr import VDSR
from .vgg import VGG16Features
