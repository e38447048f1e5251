from __future__ import annotations

import math

from common.reports import overview
from common.reports.overview import quality_against_time, write_overview

ROW = {
    "table": "isotropic",
    "method": "cubic made to agree",
    "cases": 1,
    "seeds": 1,
    "psnr": 29.999,
    "psnr_sd": math.nan,
}
ROW |= {"ssim": 0.89999, "ssim_sd": math.nan, "lpips": math.nan, "cubic_psnr": 30.0, "cubic_ssim": 0.9}
ROW |= {"displacement": 0.0, "parameters": 0, "training_seconds": 0.0, "seconds": 1.0}


def test_what_rounds_to_nothing_has_no_minus(tmp_path):
    assert write_overview(tmp_path, [ROW]).splitlines()[-2].endswith("+0.00, +0.0000")
    below = {**ROW, "psnr": 29.99, "ssim": 0.8999}
    assert write_overview(tmp_path, [below]).splitlines()[-2].endswith("-0.01, -0.0001")


def test_a_point_a_method_and_task(tmp_path, monkeypatch):
    """Over the seconds of the training and of a case; what loses much is at the edge, and its legend says how much."""
    drawn = []
    monkeypatch.setattr(overview, "save_figure", lambda figure, path: drawn.append(figure))
    learns = {"training_seconds": 200.0, "seconds": 50.0, "psnr": 32.0}
    rows = [
        ROW,
        {**ROW, **learns, "method": "learns", "psnr_sd": 0.5},
        {**ROW, **learns, "method": "fails", "psnr": 20.0},
        {**ROW, **learns, "table": "in plane", "method": "learns", "psnr": 31.0},
    ]
    quality_against_time(tmp_path / "overview.png", rows)
    isotropic, in_plane = drawn[0].axes
    assert (isotropic.get_title(), in_plane.get_title()) == ("isotropic", "in plane")
    points = {}
    for panel in (isotropic, in_plane):
        for bar in panel.containers:
            ((x, y),) = bar.lines[0].get_xydata()
            points[panel.get_title(), bar.get_label()] = (x, round(y, 3), bar.has_yerr, bar.lines[0].get_color())
    same = points["isotropic", "learns"][3]
    assert points == {
        ("isotropic", "cubic made to agree"): (1.0, -0.001, False, points["isotropic", "cubic made to agree"][3]),
        ("isotropic", "learns"): (250.0, 2.0, True, same),
        ("isotropic", "fails (-10.0 dB)"): (250.0, -3.0, False, points["isotropic", "fails (-10.0 dB)"][3]),
        ("in plane", "learns"): (250.0, 1.0, False, same),
    }
    assert len({color for *_, color in points.values()}) == 3
