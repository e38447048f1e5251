"""Ignite handlers that MONAI lacks."""

from .checkpoint import BestModel, ResumableState, load_stages, load_weights
from .evaluation import EvaluationReport, FeatureReport
from .history import LossHistory
from .kernels import KernelReport

__all__ = [
    "BestModel",
    "EvaluationReport",
    "FeatureReport",
    "KernelReport",
    "LossHistory",
    "ResumableState",
    "load_stages",
    "load_weights",
]
