"""Networks that the bundles share, one family per file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "contrastive": ["PlaceFeatures", "ProjectionHeads", "RandomPlaces", "RandomSubgrid"],
        "coordinates": ["AverageOverSlice", "CoordinateNetwork"],
        "degradation": ["LinearDegradation", "ReceiverNoise"],
        "diffusion": ["SampleNoise", "SampleStep", "ResidualDenoiser", "ResidualShift", "StepUNet"],
        "discriminators": ["PatchDiscriminator", "VGGDiscriminator"],
        "edsr": ["EDSR", "DownsamplingNetwork", "SliceBetween"],
        "interpolated": ["DCSRN", "MDCSRN", "SRCNN", "VDSR", "InterpolatedNetwork", "ReCNN", "ReconResNet"],
        "interpolation": [
            "AxisInterpolation",
            "AxisResampling",
            "SlabInterpolation",
            "SliceGains",
            "SplineInterpolation",
            "make_patch_interpolation",
        ],
        "kernel_gan": ["KernelDiscriminator", "KernelGenerator", "KernelSampling"],
        "munit": ["AdaptiveDecoder", "AttributeEncoder", "ContentEncoder", "MultiScaleDiscriminator"],
        "rdn": ["RDN", "Cascade", "GuidedRDN", "make_cascade", "prepare_for_inference"],
        "slab": ["SlabEncoder", "SlabSuperResolver"],
        "steps": [
            "Concatenate",
            "DomainDistance",
            "FixedKernel",
            "GeometricEnsemble",
            "GradientReversal",
            "HighBands",
            "ImageNetwork",
            "ImagePool",
            "SampleAtLRVoxels",
            "SelfAntiAliasing",
            "SignedRange",
        ],
        "ts_rcan": ["TSRCAN", "TranslatedTSRCAN", "TSRCANDecoder", "TSRCANDegrader"],
        "vgg": ["VGG16Features"],
        "wdsr": ["WDSR"],
    },
)
