import math

import pytest

from common.reports.cohort import describe_gain_over_start
from common.reports.overview import draw_quality_against_time, write_overview

ROW = {
    "table": "isotropic",
    "method": "cubic, with data consistency",
    "people": 1,
    "cases": 1,
    "seeds": 1,
    "psnr": 29.999,
    "ssim": 0.89999,
}
ROW |= {"psnr_sd": math.nan, "ssim_sd": math.nan, "lpips": math.nan, "cubic_psnr": 30.0, "cubic_ssim": 0.9}
ROW |= {"displacement": 0.0, "parameters": 0, "training_seconds": 0.0, "seconds": 1.0}
ROW |= {"iterations": None, "trained": None, "knew": None}


def test_what_rounds_to_nothing_has_no_minus(tmp_path):
    for row, end in ((ROW, "+0.00, +0.0000"), ({**ROW, "psnr": 29.99, "ssim": 0.8999}, "-0.01, -0.0001")):
        assert write_overview(tmp_path, [row]).splitlines()[-2].endswith(f"{end}     -")


def test_what_was_not_trained_and_what_each_knew(tmp_path):
    labels = {"trained": "not trained", "knew": "scans", "iterations": 1200}
    rows = [ROW, {**ROW, **labels, "method": "lazy"}, {**ROW, **labels, "table": "in plane", "trained": "yes"}]
    lines = write_overview(tmp_path, rows).splitlines()
    assert [line.split()[-1] for line in lines[:-1]] == ["knew", "-----", "-", "scans", "scans"]
    assert lines[4].split("  ")[0] == "lazy" and " 1200 " in lines[4] and "+0.00, +0.0000, not trained" in lines[4]
    assert "not trained" not in lines[3]


@pytest.mark.parametrize(("psnr", "said"), [(30.06, "yes"), (30.04, "not trained"), (29.94, "below start")])
def test_a_row_and_its_start(tmp_path, psnr, said):
    assert describe_gain_over_start(psnr, 30.0) == said
    lines = write_overview(tmp_path, [{**ROW, "trained": said}]).splitlines()
    assert lines[3].endswith("+0.0000     -" if said == "yes" else f"+0.0000, {said}     -")


def test_a_point_a_method_and_task(tmp_path, figures):
    """It lies over the seconds; what loses much is at the edge, and the legend says how much."""
    learns = {**ROW, "training_seconds": 200.0, "seconds": 50.0, "method": "learns"}
    rows = [ROW, {**learns, "psnr": 32.0, "psnr_sd": 0.5}, {**learns, "psnr": 20.0, "method": "fails"}]
    draw_quality_against_time(tmp_path / "overview.png", [*rows, {**learns, "psnr": 31.0, "table": "in plane"}])
    points, colours = {}, {}
    for panel in figures[0].axes:
        for bar in panel.containers:
            (x, y), key = bar.lines[0].get_xydata()[0], (panel.get_title(), bar.get_label())
            points[key], colours[key] = (x, round(y, 3), bar.has_yerr), bar.lines[0].get_color()
    assert points == {
        ("isotropic", "cubic, with data consistency"): (1.0, -0.001, False),
        ("isotropic", "learns"): (250.0, 2.0, True),
        ("isotropic", "fails (-10.0 dB)"): (250.0, -3.0, False),
        ("in plane", "learns"): (250.0, 1.0, False),
    }
    assert colours["isotropic", "learns"] == colours["in plane", "learns"] and len({*colours.values()}) == 3
