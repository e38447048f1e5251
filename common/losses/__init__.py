"""Losses that MONAI and torch lack, and the table that weighs them."""

from .adaptation import AdaptationLoss
from .adversarial import CrossEntropyLoss, GradientPenalty, LeastSquaresLoss, WassersteinLoss
from .kernel import (
    BoundaryLoss,
    CentreLoss,
    DownscaleLoss,
    KernelSchedule,
    SparsityLoss,
    SumToOneLoss,
)
from .low_frequency import LowFrequencyLoss
from .perceptual import PerceptualLoss
from .ssim import SquaredSSIMLoss, SSIMLoss
from .table import LossTable
from .warm_up import WarmUp
from .weighted import WeightedL1Loss
