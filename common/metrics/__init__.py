"""Metrics on images and volumes in [0, 1], and the baselines they are compared with."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "added_detail": ["measure_added_share", "split_measured"],
        "baseline": ["interpolate_bicubic", "interpolate_cubic"],
        "brightness_classes": ["divide_by_brightness"],
        "data_consistency": ["measure_scan_difference"],
        "interval": ["Interval", "estimate_error_scale"],
        "lpips": ["Lpips"],
        "metric": ["Metric"],
        "mscn": ["compute_mscn", "select_slices"],
        "volume": [
            "compute_psnr",
            "compute_slices_psnr",
            "compute_slices_ssim",
            "compute_ssim",
            "measure_displacement",
            "shift_volume",
        ],
    },
)
