"""How far a result is from the scan that it was made from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from skimage.filters import threshold_otsu

from ..degradations.base import Degradation
from ..physics.means import compute_mean_in_order
from ..physics.noise import estimate_noise_in_air


def measure_scan_difference(
    sr: torch.Tensor, lr: torch.Tensor, degradations: Sequence[Degradation]
) -> tuple[float, float]:
    r"""Measure how far a result, degraded again, is from its scan, relative to the brightness of tissue.

    .. math:: \min_A \|A x - y\| / \|y\| \quad \text{and} \quad \min_A \sqrt{\max(0, \|A x - y\|^2 - \sigma^2)} / \|y\|,

    where norms are root mean squares over the voxels of the scan that are brighter than Otsu's threshold. The noise
    :math:`\sigma` is that in the scan's air (:func:`common.physics.noise.estimate_noise_in_air`), because a result
    without this noise does not contradict the scan. Interpolation adds to the value, so compare it with values of other
    scans.

    Args:
        sr: result x ``(..., X, Y, Z)``.
        lr: scan y ``(..., X / f0, Y / f1, Z / f2)``, normalised so that 0 is no signal.
        degradations: the operators A that may have made the scan.

    Returns:
        The difference, and that beyond noise. 0 where the two agree; NaN for a scan without signal.
    """
    lr = torch.as_tensor(lr).float()
    bright = lr > float(threshold_otsu(lr.clamp(0, 1).cpu().numpy().ravel()))
    missed = [(degradation.to(lr.device)(torch.as_tensor(sr).float()) - lr)[bright] for degradation in degradations]
    noise = estimate_noise_in_air(lr.reshape(1, 1, *lr.shape[-3:])).nan_to_num(0.0)
    power = min(compute_mean_in_order(m.square()) for m in missed)
    brightness = compute_mean_in_order(lr[bright].square()).sqrt()
    beyond_noise = (power - noise[0].square()).clamp_min(0)
    # Both at once, because the host waits for a GPU.
    difference, beyond = (torch.stack([power.reshape(()), beyond_noise.reshape(())]).sqrt() / brightness).tolist()
    return difference, beyond
