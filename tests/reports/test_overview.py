from __future__ import annotations

import math

from common.reports.overview import write_overview


def test_what_rounds_to_nothing_has_no_minus(tmp_path):
    row = {
        "table": "isotropic",
        "method": "cubic made to agree",
        "cases": 1,
        "seeds": 1,
        "psnr": 29.999,
        "psnr_sd": math.nan,
    }
    row |= {"ssim": 0.89999, "ssim_sd": math.nan, "lpips": math.nan, "cubic_psnr": 30.0, "cubic_ssim": 0.9}
    row |= {"displacement": 0.0, "parameters": 0, "training_seconds": 0.0, "seconds": 1.0}
    assert write_overview(tmp_path, [row]).splitlines()[-2].endswith("+0.00, +0.0000")
    below = {**row, "psnr": 29.99, "ssim": 0.8999}
    assert write_overview(tmp_path, [below]).splitlines()[-2].endswith("-0.01, -0.0001")
