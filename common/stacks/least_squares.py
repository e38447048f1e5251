"""One volume that agrees with all stacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..runtime.progress import begin_part, report_share
from .guide import GuidingEdges
from .operator import StackOperator

_CONVERGED = 1e-10  # of the power of the first residual
_ROUNDS = 3  # with a guide, whose term is not quadratic
_LIKELY = 0.0125  # slope that the guide does not show, in the volume's range


def enforce_data_consistency(
    volume: torch.Tensor,
    stacks: Sequence[torch.Tensor],
    operators: Sequence[StackOperator],
    variances: Sequence[float],
    error: float = 0.03,
    iterations: int = 5,
    guide: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Correct a volume until it agrees with all stacks at once, as far as their noise allows.

    Conjugate gradients start from the volume :math:`x_0` and solve

    .. math:: \min_x \sum_k \frac{\lVert y_k - A_k x \rVert^2}{\sigma_k^2} + \frac{\lVert x - x_0 \rVert^2}{\tau^2}
        + \frac{2 R(x)}{0.0125}

    The last term is used with a guide only, see :class:`~common.stacks.guide.GuidingEdges`. It is not quadratic, so the
    problem is solved three times, each time with a new quadratic form in place of R.

    Args:
        volume: :math:`x_0`, ``(X, Y, Z)``.
        stacks: :math:`y_k`, with the brightness of the volume.
        operators: :math:`A_k`, one for each stack.
        variances: :math:`\sigma_k^2`, variance of the error of each stack.
        error: :math:`\tau`, standard deviation of the volume's error.
        iterations: of the conjugate gradients for each solution.
        guide: on the grid of the volume, about in [0, 1].

    Returns:
        The corrected volume.
    """
    edges = None if guide is None else GuidingEdges(guide)
    least, start, rounds = min(variances), volume, 1 if guide is None else _ROUNDS
    weights, trust = [least / variance for variance in variances], least / error**2
    terms = list(zip(stacks, operators, weights, strict=True))
    right = sum(weight * a.adjoint(y) for y, a, weight in terms) + trust * start
    for i in range(rounds):
        form = None if edges is None else edges.linearise_around(volume)

        def apply_system(x: torch.Tensor, form: Callable | None = form) -> torch.Tensor:
            total = sum(weight * a.adjoint(a(x)) for _, a, weight in terms) + trust * x
            return total if form is None else total + 2 * least / _LIKELY * form(x)

        with begin_part(i, rounds):
            volume = _solve_conjugate_gradients(apply_system, right, volume, iterations)
    return volume


def _solve_conjugate_gradients(
    operator: Callable[[torch.Tensor], torch.Tensor], right: torch.Tensor, start: torch.Tensor, iterations: int
) -> torch.Tensor:
    """Solve ``image(x) = right`` approximately for a symmetric linear function, from a start."""
    volume, residual = start.clone(), right - operator(start)
    direction, power = residual.clone(), residual.square().sum()
    enough = _CONVERGED * power
    for i in range(iterations):
        if volume.device.type == "cpu" and power <= enough:
            break
        product = operator(direction)
        # On a GPU nothing changes once it has converged; to leave the loop, the processor would wait.
        length = (power / (direction * product).sum()).where(power > enough, 0)
        volume.add_(length * direction)
        residual = residual - length * product
        before, power = power, residual.square().sum()
        direction = residual + (power / before).where(power > enough, 0) * direction
        report_share((i + 1) / iterations)
    return volume
