"""Degradations: from a high-resolution MR volume to a low-resolution one, with the positions of its voxels.

Every operator is an ``nn.Module`` with ``forward``, ``adjoint`` (if it is linear), ``compute_lr_affine`` and
``compute_hr_affine``. ``FittedProfile`` estimates an operator from a scan.
"""

from .base import Degradation
from .compose import (
    ComposeDegradations,
    RandomDegradation,
    choose_degradation,
    make_forward_operator,
    make_random_blur,
)
from .fitted_profile import FittedProfile, make_slice_profile, read_profile_width
from .interpolation import DegradeAndInterpolate, DegradeImages, interpolate
from .k_space import BandLimit, EllipticalKSpace, HammingFilter, KSpaceFilter, KSpaceTruncation, PartialFourier
from .profiles import GaussianProfile, InPlaneKernel
from .rician_noise import RicianNoise
from .turned import TurnedDegradation
