"""Losses that MONAI and torch lack, and the table that weighs them."""

from .adaptation import AdaptationLoss
from .low_frequency import LowFrequencyLoss
from .ssim import SquaredSSIMLoss
from .table import LossTable

__all__ = ["AdaptationLoss", "LossTable", "LowFrequencyLoss", "SquaredSSIMLoss"]
