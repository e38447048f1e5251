"""The picture of kernels, and the table of how far they are from a known one."""

import numpy as np
import pytest
import torch

from common.physics.blur_kernels import compute_kernel_error, describe_kernel, make_gaussian_kernel
from common.reports import draw_kernel_figure, tabulate_kernel_errors
from common.reports import kernel_figures as module


def entry(sigma=(2.0, 1.0), angle=30.0, shift=(0, 0), **named):
    kernel = make_gaussian_kernel(sigma, angle, size=15).roll(shift, dims=(0, 1))
    return {"volume": "a/sub-1_t1w.nii.gz", "slice": 3, **describe_kernel(kernel), "kernel": kernel.tolist(), **named}


def test_the_ellipse_is_the_half_maximum_of_the_kernel_that_is_drawn(tmp_path, figures):
    entries = [entry(shift=(1, -2)), entry((1.5, 1.0), 110.0, slice=None)]
    draw_kernel_figure(tmp_path / "kernels.png", entries, (0.8, 1.6))
    assert [p.name for p in tmp_path.iterdir()] == ["kernels.png"]
    for panel, shown, shift in zip(figures[0].axes, entries, ((1, -2), (0, 0)), strict=False):
        np.testing.assert_array_equal(panel.images[0].get_array(), np.asarray(shown["kernel"]))
        assert panel.get_aspect() == 0.5  # a pixel is 0.8 mm high and 1.6 mm wide
        assert panel.get_ylim()[0] > panel.get_ylim()[1]  # the first axis runs down
        ellipse, cross, dot = panel.lines
        centre = [7 + shift[1], 7 + shift[0]]
        assert cross.get_xydata()[0] == pytest.approx(centre, abs=0.01) and dot.get_xydata()[0].tolist() == [7, 7]
        sigma = [20 * w / (2 * np.sqrt(2 * np.log(2))) for w in shown["fwhm"]]  # of a kernel 20 times as fine
        fine = make_gaussian_kernel(sigma, shown["angle"], size=301).double()
        x, y = np.rint(150 + 20 * (ellipse.get_xydata() - centre)).astype(int).T
        assert (fine[y, x] / fine.max()).numpy() == pytest.approx(np.full(100, 0.5), abs=0.03)
    first, second = (panel.get_title() for panel in figures[0].axes[:2])
    assert first.startswith("sub-1_t1w, slice 3\nFWHM 4.7 x 2.4 px, 30°\ncentre +1.00, -2.00")
    assert second.startswith("sub-1_t1w\nFWHM 3.5 x 2.4 px, 110°")
    assert figures[0].get_suptitle() == "2 kernels; 1 px is 0.8 x 1.6 mm (HR)"


def test_of_many_kernels_some_are_drawn(tmp_path, figures, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 10)
    draw_kernel_figure(tmp_path / "kernels.png", [entry(slice=i, volume="a$b^$.nii") for i in range(19)], (1.0, 1.0))
    titles = [panel.get_title().split("\n")[0] for panel in figures[0].axes if panel.get_title()]
    assert titles == [f"a\\$b^\\$, slice {i}" for i in range(0, 19, 2)]
    assert figures[0].get_suptitle().startswith("10 of 19 kernels")


def test_errors_are_those_of_each_kernel_and_of_the_others():
    truth = make_gaussian_kernel((2.0, 1.0), 30)
    kernels = torch.stack([make_gaussian_kernel((2.0, 1.0), angle) for angle in (20, 45)])
    text = tabulate_kernel_errors(kernels, truth, {"Gaussian": make_gaussian_kernel(1.5), "itself": truth})
    _, _, true, estimated, gaussian, itself = text.splitlines()
    errors = [compute_kernel_error(kernel, truth) for kernel in kernels]
    assert "4.71 x 2.35" in true and true.split()[-1] == "30.0"
    assert f"{np.mean(errors):.3f} +- {np.std(errors, ddof=1):.3f}" in estimated and "(2)" in estimated
    assert f"{compute_kernel_error(make_gaussian_kernel(1.5), truth):.3f}" in gaussian and "3.53 x 3.53" in gaussian
    assert itself.split()[1] == "0.000" and "+-" not in tabulate_kernel_errors(kernels[:1], truth, {})
