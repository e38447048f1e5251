"""The measurement of an image in plane by a scanner that samples k-space."""

from __future__ import annotations

from ..values import is_true
from .band_limit import BandLimit
from .base import Degradation
from .compose import ComposeDegradations
from .gaussian_profile import GaussianProfile


def measurement(degradation: Degradation, band_limited: bool | str) -> Degradation:
    """The operator that back projection inverts.

    Args:
        degradation: of the config.
        band_limited: whether the scan holds only the frequencies that it samples, on the grids of ``degradation``.

    Returns:
        Truncation of k-space if band-limited, else ``degradation`` itself.
    """
    if not is_true(band_limited, "band_limited"):
        return degradation
    factors = degradation.factors
    # Such a narrow profile only samples.
    return ComposeDegradations([BandLimit(factors), GaussianProfile(factors, fwhm=0.02)])
