"""Metrics on images and volumes in [0, 1], and the baseline they are compared with."""

from .baseline import cubic
from .brisque import Brisque, brisque_features, mscn
from .volume import displacement, psnr, ssim

__all__ = ["Brisque", "brisque_features", "cubic", "displacement", "mscn", "psnr", "ssim"]
