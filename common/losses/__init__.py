"""Losses that MONAI and torch lack, and the table that weighs them."""

from .adversarial import AdaptationLoss, CrossEntropyLoss, GradientPenalty, LeastSquaresLoss, WassersteinLoss
from .contrastive import PatchContrastiveLoss
from .image import LowFrequencyLoss, PerceptualLoss, SquaredSSIMLoss, SSIMLoss, WeightedL1Loss
from .kernel import BoundaryLoss, CentreLoss, DownscaleLoss, KernelSchedule, SparsityLoss, SumToOneLoss
from .table import LossTable, WarmUp
