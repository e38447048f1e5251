"""Degradations: from a high-resolution MR volume to a low-resolution one, with the positions of its voxels.

Every operator is an ``nn.Module`` with ``forward``, ``adjoint`` (if it is linear), ``lr_affine`` and ``hr_affine``.
``FittedProfile`` estimates an operator from a scan.
"""

from .base import Degradation
from .compose import ComposeDegradations, RandomDegradation, as_scanned, measurement, random_kernels
from .fitted_profile import FittedProfile, slice_profile, told_width
from .interpolation import Interpolated, ZeroShotImages, interpolated
from .k_space import BandLimit, EllipticalKSpace, KSpaceFilter, KSpaceTruncation, PartialFourier
from .profiles import BlockAverage, GaussianProfile, InPlaneKernel
from .rician_noise import RicianNoise
