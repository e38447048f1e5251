"""Losses that MONAI and torch lack, and the table that weighs them."""

from .adaptation import AdaptationLoss
from .adversarial import AdversarialLoss
from .kernel import (
    BoundaryLoss,
    CentreLoss,
    DownscaleLoss,
    KernelSchedule,
    SparsityLoss,
    SumToOneLoss,
)
from .low_frequency import LowFrequencyLoss
from .ssim import SquaredSSIMLoss
from .table import LossTable

__all__ = [
    "AdaptationLoss",
    "AdversarialLoss",
    "BoundaryLoss",
    "CentreLoss",
    "DownscaleLoss",
    "KernelSchedule",
    "LossTable",
    "LowFrequencyLoss",
    "SparsityLoss",
    "SquaredSSIMLoss",
    "SumToOneLoss",
]
