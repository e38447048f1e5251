"""What the measurements of ``tests.benchmarks.gpu`` are made with: comparisons, and settings for a while."""

import contextlib
import logging
import os
import traceback
import warnings
from collections.abc import Iterator, Sequence

import torch

from tests.bundles import runs

NO_LOSS = 1e-2  # a loss below this differs by a share of this


@contextlib.contextmanager
def cudnn(**flags: bool) -> Iterator[None]:
    with contextlib.ExitStack() as restored:
        for name, value in flags.items():
            restored.callback(setattr, torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
            setattr(torch.backends.cudnn, name, value)
        yield


def place(error: BaseException) -> str:
    """An error's kind and message, with the innermost line of the project that it came from."""
    cause, root = runs.first_cause(error), f"{runs.ROOT}/"
    lines = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename.startswith(root)]
    at = f" ({lines[-1].filename.removeprefix(root)}:{lines[-1].lineno})" if lines else ""
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:600]}{at}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, and without what a run says."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        finally:
            logging.disable(logging.NOTSET)


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def relative(found: float, expected: float) -> float:
    """Difference of a loss from another, as a share of that."""
    return abs(found - expected) / max(abs(expected), NO_LOSS)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest, as a share of the largest expected value; 0 of tensors that hold nothing, such as no guide."""
    found, expected = (tensor.detach().cpu().float() for tensor in (found, expected))
    if found.shape == expected.shape and not found.numel():
        return 0.0
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-6)).item()


def check(what: str, found: float, tolerance: float) -> None:
    """Refuse a difference above the tolerance, or none that is a number."""
    if not found <= tolerance:
        raise RuntimeError(f"{what}: relative difference {found:.1e}, expected at most {tolerance:.0e}")
