"""Losses that MONAI and torch lack, and the table that weighs them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adversarial": ["GradientPenalty", "WassersteinLoss"],
        "contrastive": ["PatchContrastiveLoss"],
        "image": ["LowFrequencyLoss", "PerceptualLoss", "SquaredSSIMLoss", "SSIMLoss", "WeightedL1Loss"],
        "kernel": ["BoundaryLoss", "CentreLoss", "DownscaleLoss", "KernelSchedule", "SparsityLoss", "SumToOneLoss"],
        "table": ["LossTable", "WarmUp"],
    },
)
