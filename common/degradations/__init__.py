"""Degradations: from a high-resolution MR volume to a low-resolution one, with the positions of its voxels.

Every operator is an ``nn.Module`` with ``forward``, ``adjoint`` (if it is linear), ``lr_affine`` and ``hr_affine``.
``FittedProfile`` estimates an operator from a scan.
"""

from .band_limit import BandLimit
from .base import Degradation
from .k_space_filter import KSpaceFilter
from .block_average import BlockAverage
from .compose import ComposeDegradations
from .elliptical_k_space import EllipticalKSpace
from .fitted_profile import FittedProfile, slice_profile, told_width
from .gaussian_profile import GaussianProfile
from .in_plane_kernel import InPlaneKernel
from .interpolation import Interpolated, ZeroShotImages, interpolated
from .k_space_truncation import KSpaceTruncation
from .partial_fourier import PartialFourier
from .random_degradation import RandomDegradation, random_kernels
from .rician_noise import RicianNoise
from .sampling import measurement
from .thick_or_coarse import as_scanned
