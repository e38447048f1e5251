"""Data consistency of results with their scan: correct them, and warn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from scipy.fft import next_fast_len
from torch.nn import functional as F

from ..degradations.base import Degradation, remove_metadata
from ..metrics.data_consistency import measure_scan_difference
from ..physics.continuation import append_ramp
from ..physics.noise import compute_rician_bias, estimate_noise_in_air
from ..runtime.errors import Contradiction
from ..runtime.values import check_whole_numbers

_WINDOW = 5  # LR voxels


class ConsistentInferer(Inferer):
    r"""Corrects a result until it is not negative and, degraded again, agrees with the scan except for noise.

    Two projections alternate: onto volumes that agree with the measurement, as in :func:`back_project`, and onto
    volumes that are not negative. With k-space truncation the first restores the measured part of k-space, and keeps
    what the network added beyond it. At the Nyquist frequency of even sizes each projection goes half-way.

    The result should not agree with noise. The noise level :math:`\sigma` is measured in the scan's air
    (:func:`common.physics.noise.estimate_noise_in_air`). The difference between scan y and degraded result A x is
    corrected for the bias b of noise in magnitudes. In each voxel it is weighted by the share of its power that is not
    noise,

    .. math:: w = \max(0, 1 - \sigma^2 / P), \qquad P = \overline{(y - A x - b_\sigma(A x))^2},

    where P is a mean over 5x5x5 voxels, computed before the first correction. If there is no noise, or no air to
    measure it, w is 1.

    Operators on k-space assume periodic volumes. If the field of view ends in tissue, the jump from one side to the
    other would cause ringing. So the result is extended by at least ``margin`` LR voxels along each degraded axis. They
    lead linearly from its end back to its beginning, and are not compared with the scan.

    Args:
        inferer: gives the result to correct.
        degradation: the linear operator from the result to the scan.
        iterations: of the two projections; the last is the one onto volumes that are not negative.
        margin: least number of LR voxels between the end of the volume and its periodic repetition; a few more are
            added if FFTs are then faster. Use 0 for periodic scans, such as those simulated by truncating the k-space
            of a volume with tissue at its border.

    Source:
        Youla and Webb, IEEE TMI 1(2), 1982. The weight is that of Lee, IEEE TPAMI 2(2), 1980.
    """

    def __init__(self, inferer: Inferer, degradation: Degradation, iterations: int = 8, margin: int = 8) -> None:
        super().__init__()
        if not degradation.is_linear:
            raise TypeError(
                "ConsistentInferer needs a linear degradation, for its adjoint. Give the linear part: "
                f"{degradation.explain_nonlinearity()}"
            )
        check_whole_numbers(0, **{"iterations (--data_consistency_iterations)": iterations})
        self.inferer = inferer
        self.degradation = degradation
        self.iterations = iterations
        self.margin = margin

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Super-resolve ``(B, 1, X, Y, Z)``, normalised so that 0 is no signal; the result is nowhere negative."""
        lr = remove_metadata(inputs)
        if not self.iterations:
            return remove_metadata(self.inferer(inputs, network, *args, **kwargs))
        noise = estimate_noise_in_air(lr).nan_to_num(0.0).view(-1, 1, 1, 1, 1)
        degradation, factors = self.degradation.to(lr.device), self.degradation.factors
        sizes, gain = lr.shape[2:], math.prod(factors)
        # FFTs are up to four times as fast for multiples of 4 without large prime factors.
        fast = [4 * next_fast_len(math.ceil((n + self.margin) / 4)) - n for n in sizes]
        margins = [m if self.margin and factor > 1 else 0 for m, factor in zip(fast, factors, strict=True)]
        sr = remove_metadata(self.inferer(inputs, network, *args, **kwargs))
        inside: Any = (..., *(slice(n) for n in sr.shape[2:]))
        sr = append_ramp(sr, [margin * factor for margin, factor in zip(margins, factors, strict=True)])
        scanned: Any = (..., *(slice(n) for n in sizes))
        outside = [size for margin in reversed(margins) for size in (0, margin)]
        # On a GPU, any() would wait for it.
        noisy, weight = lr.device.type != "cpu" or bool(noise.any()), None
        for _ in range(self.iterations):
            missed = _compute_residual(lr, degradation(sr)[scanned], noise if noisy else None)
            if noisy:
                weight = _compute_signal_share(missed, noise) if weight is None else weight
                missed.mul_(weight)
            # Not back_project, which has no weights. In place, to save the memory of a volume.
            sr = sr.add_(degradation.adjoint(F.pad(missed, outside)), alpha=gain).clamp_min_(0)
        return sr[inside].contiguous()


def _compute_residual(lr: torch.Tensor, again: torch.Tensor, noise: torch.Tensor | Any) -> torch.Tensor:
    """Difference between the scan and the degraded result, minus the bias of noise, if any."""
    missed = lr - again
    # In parts, because the bias takes many times their memory.
    for part, signal in () if noise is None else zip(missed.split(8, dim=2), again.split(8, dim=2), strict=True):
        part.sub_(compute_rician_bias(signal, noise))
    return missed


def _compute_signal_share(missed: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Share of the power around each voxel that is not noise; 1 if there is neither a difference nor noise."""
    # Padded first, because volumes may be thinner than the window.
    power = F.pad(missed.square(), [_WINDOW // 2] * 6, mode="replicate")
    for window in ((_WINDOW, 1, 1), (1, _WINDOW, 1), (1, 1, _WINDOW)):
        power = F.avg_pool3d(power, window, stride=1)
    return (1 - noise.square() / power.clamp_min(torch.finfo(power.dtype).tiny)).clamp_min(0)


class CheckedInferer(Inferer):
    """Warns if a result disagrees with its scan more than results did in validation.

    Detail that a network adds cannot be checked, but the degraded result must agree with the scan. If it does not, the
    scan is unlike the training scans, and the result may be worse than interpolation.

    Args:
        inferer: gives the result, which is returned unchanged.
        degradations: linear operators from the result to the scan; the one that agrees best is used.
        highest_error: highest difference beyond noise (:func:`common.metrics.measure_scan_difference`) in validation,
            with a margin; None checks nothing.
    """

    def __init__(self, inferer: Inferer, degradations: Sequence[Degradation], highest_error: float | None) -> None:
        super().__init__()
        self.inferer = inferer
        self.degradations = list(degradations)
        self.highest_error = highest_error

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the inferer on ``(B, 1, X, Y, Z)``, normalised so that 0 is no signal, and check its result."""
        sr = self.inferer(inputs, network, *args, **kwargs)
        if self.highest_error is not None:
            lr = remove_metadata(inputs)
            _, error = measure_scan_difference(sr, lr, self.degradations)
            if not error <= self.highest_error:  # NaN agrees with nothing
                missed = (
                    f"degraded again, its result differs from the scan by {error:.1%} of the brightness of tissue, in "
                    f"validation by at most {self.highest_error:.1%}"
                )
                if math.isnan(error):
                    missed = "its result cannot be compared with the scan: one has no signal or no finite values"
                warnings.warn(
                    f"the network contradicts the scan; {missed}. Cubic interpolation may be nearer to the truth: "
                    "compare the two.",
                    Contradiction,
                    stacklevel=2,
                )
        return sr
