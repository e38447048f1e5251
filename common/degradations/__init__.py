"""Degradations: from a high-resolution MR volume to a low-resolution one, with the positions of its voxels.

Every operator is an ``nn.Module`` with ``forward``, ``adjoint`` (if it is linear), ``compute_lr_affine`` and
``compute_hr_affine``. ``FittedProfile`` estimates an operator from a scan.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "acquisition": ["make_acquisition"],
        "base": ["Degradation"],
        "compose": [
            "ComposeDegradations",
            "RandomDegradation",
            "choose_degradation",
            "make_forward_operator",
            "make_random_blur",
        ],
        "fitted_profile": ["FittedProfile", "make_slice_profile"],
        "interpolation": ["DegradeAndInterpolate", "DegradeImages", "interpolate"],
        "k_space": [
            "BandLimit",
            "EllipticalKSpace",
            "HammingFilter",
            "KSpaceFilter",
            "KSpaceTruncation",
            "PartialFourier",
        ],
        "profiles": ["GaussianProfile", "InPlaneKernel"],
        "rician_noise": ["RicianNoise"],
        "turned": ["TurnedDegradation"],
    },
)
