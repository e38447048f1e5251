"""Metrics on volumes in [0, 1], and the baseline they are compared with."""

from .baseline import cubic
from .volume import displacement, psnr, ssim

__all__ = ["cubic", "displacement", "psnr", "ssim"]
