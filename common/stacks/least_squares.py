"""One volume that agrees with all stacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..runtime.progress import track
from .guide import GuidingEdges, SlopeForm
from .operator import StackOperator

#: Factor on the noise of a scan in the start's consistency with it: networks and averaging have already removed noise.
NOISE_FACTOR = 2.0
#: Standard deviation of an operator's error for a scan without noise, in the range of the scan.
MODEL_ERROR = 0.004
_CONVERGED = 1e-10  # of the power of the first residual


def enforce_data_consistency(
    volume: torch.Tensor,
    stacks: Sequence[torch.Tensor],
    operators: Sequence[StackOperator],
    variances: Sequence[float],
    error: float = 0.03,
    iterations: int = 5,
    guides: Sequence[torch.Tensor] = (),
    slope: float = 0.0125,
    rounds: int = 3,
) -> torch.Tensor:
    r"""Correct a volume until it agrees with all stacks at once, as far as their noise allows.

    Conjugate gradients start from the volume :math:`x_0` and solve

    .. math:: \min_x \sum_k \frac{\lVert y_k - A_k x \rVert^2}{\sigma_k^2} + \frac{\lVert x - x_0 \rVert^2}{\tau^2}
        + \frac{2}{s} \cdot \frac{1}{G} \sum_{g=1}^G R_g(x)

    The last term is used with guides only, see :class:`~common.stacks.guide.GuidingEdges`. It is not quadratic, so the
    problem is solved several times, each time with a new quadratic form in place of it.

    Args:
        volume: :math:`x_0`, ``(X, Y, Z)``.
        stacks: :math:`y_k`, with the brightness of the volume.
        operators: :math:`A_k`, one for each stack.
        variances: :math:`\sigma_k^2`, variance of the error of each stack.
        error: :math:`\tau`, standard deviation of the volume's error.
        iterations: of the conjugate gradients for each solution.
        guides: on the grid of the volume, about in [0, 1].
        slope: s, likely slope that no guide shows, in the volume's range; the larger, the less guides count.
        rounds: with guides, how often the problem is solved.

    Returns:
        The corrected volume.
    """
    edges = GuidingEdges(guides) if guides else None
    least, start, rounds = min(variances), volume, rounds if guides else 1
    weights, trust = [least / variance for variance in variances], least / error**2
    terms = list(zip(stacks, operators, weights, strict=True))
    right = sum(weight * a.adjoint(y) for y, a, weight in terms) + trust * start
    for _ in track(range(rounds)):
        form = None if edges is None else edges.linearise_around(volume)

        def apply_system(x: torch.Tensor, form: SlopeForm | None = form) -> torch.Tensor:
            total = trust * x
            for _, a, weight in terms:
                total.add_(a.adjoint(a(x)), alpha=weight)
            return total if form is None else total.add_(form(x), alpha=2 * least / slope)

        volume = solve_conjugate_gradients(apply_system, right, volume, iterations)
    return volume


def solve_conjugate_gradients(
    operator: Callable[[torch.Tensor], torch.Tensor], right: torch.Tensor, start: torch.Tensor, iterations: int
) -> torch.Tensor:
    """Solve ``image(x) = right`` approximately for a symmetric linear function, from a start."""
    volume, residual = start.clone(), right - operator(start)
    direction, power = residual.clone(), _multiply(residual, residual)
    enough = _CONVERGED * power
    for _ in track(range(iterations)):
        if volume.device.type == "cpu" and power <= enough:
            break
        product = operator(direction)
        # On a GPU nothing changes once it has converged; to leave the loop, the processor would wait.
        length = (power / _multiply(direction, product)).where(power > enough, 0)
        volume.addcmul_(direction, length)
        residual.addcmul_(product, -length)
        before, power = power, _multiply(residual, residual)
        direction.mul_((power / before).where(power > enough, 0)).add_(residual)
    return volume


def _multiply(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.dot(first.flatten(), second.flatten())
