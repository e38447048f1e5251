"""Super-resolution by a network that was trained on the scan itself or on many scans."""

from __future__ import annotations

from ..degradations import Degradation
from ..physics.scale import zero_shot
from .consistent import ConsistentInferer
from .ensemble import EnsembleInferer
from .interpolated import InterpolatedInferer
from .orthogonal import OrthogonalInferer


class ZeroShotInferer(ConsistentInferer):
    """Runs a 2-D network over an interpolated volume, across each axis whose images become finer.

    Each image is mirrored, and also turned if the volume becomes finer in plane. The mean over the directions is
    corrected to agree with the scan.

    Args:
        degradation: from HR to the scan, of factors [n, n, n], [n, n, 1] or [1, 1, n].
        ensemble: whether to use mirrored and turned images, see :class:`EnsembleInferer`.
        iterations: of :class:`ConsistentInferer`; 0 leaves the network's result unchanged.

    Raises:
        ValueError: for other factors.

    Source:
        Shocher et al., "Zero-Shot" super-resolution using deep internal learning, IEEE CVPR 2018, section 3.1.
    """

    def __init__(self, degradation: Degradation, ensemble: bool | str = True, iterations: int = 1) -> None:
        images = OrthogonalInferer(zero_shot(list(degradation.factors))[0], keeps_size=True)
        forms = EnsembleInferer(images, turned=degradation.factors[0] > 1, enabled=ensemble)
        super().__init__(InterpolatedInferer(forms, degradation), degradation, iterations)
