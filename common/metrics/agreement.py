"""How far a result is from the scan that it was made from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from skimage.filters import threshold_otsu

from ..degradations import Degradation


def disagreement(sr: torch.Tensor, lr: torch.Tensor, degradations: Sequence[Degradation]) -> float:
    r"""What a result, degraded again, misses of its scan, as a share of the brightness of tissue.

    .. math:: \min_A \|A x - y\| / \|y\|,

    norms over the voxels of the scan that are brighter than Otsu's threshold. Interpolation and noise have a part in it
    too: it is to be compared with what it is on other scans.

    Args:
        sr: result x ``(..., X, Y, Z)``.
        lr: scan y ``(..., X / f0, Y / f1, Z / f2)``, normalised so that 0 is no signal.
        degradations: the operators A that the scan may have been made by.

    Returns:
        0 where the two agree; NaN for a scan without signal.
    """
    lr = torch.as_tensor(lr).float()
    bright = lr > float(threshold_otsu(lr.clamp(0, 1).cpu().numpy().ravel()))
    missed = [(degradation.to(lr.device)(torch.as_tensor(sr).float()) - lr)[bright] for degradation in degradations]
    return float(min(m.square().mean() for m in missed).sqrt() / lr[bright].square().mean().sqrt())
