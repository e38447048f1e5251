"""What an estimation leaves behind: a file of kernels that serves the next stage, and two pictures."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from matplotlib.image import imread

from common.data import KernelCropLoader, VolumeCache, select_kernel_cases
from common.degradations import InPlaneKernel
from common.handlers import KernelReport
from common.handlers import kernel_report as module
from common.networks import KernelGenerator
from common.physics.blur_kernels import make_bicubic_kernel, make_gaussian_kernel, read_kernels
from tests.bundles.runs import phantom
from tests.refused import has

FILES = {"kernels_1.json", "kernels_1.png", "kernels_1_mscn.png"}


def loader_of(kernel, offset=0.0, per="slice"):
    hr = torch.from_numpy(phantom(0, (48, 44, 24))[..., 10:13]).float()[None] / 1000
    volumes = {"hr": hr, "lr": InPlaneKernel(kernel, 2, offset)(hr)}
    caches = [VolumeCache([{k: f"{k}.nii", "subject": "a"}], lambda e, k=k: {k: volumes[k]}, [k]) for k in volumes]
    return KernelCropLoader(*caches, select_kernel_cases(*caches, per), 16, 8, 1, seed=0, device="cpu")


def report(folder, kernels, loader, offset=0.0, done=0, generator=None):
    """Train 4 iterations, or none after a training that had finished, with these average kernels at the end.

    With a ``generator``, its kernels at the end are those that count.
    """
    as_trained = generator is not None
    generator = generator or KernelGenerator(len(kernels), 2)
    generator.average.copy_(torch.stack(list(kernels)))
    engine = Engine(lambda *_: None)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", done))
    KernelReport(folder / "kernels_1.json", generator, loader, [0.9, 1.1], 2, offset, as_trained).attach(engine)
    engine.run(range(2), max_epochs=2)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_kernels_are_written_with_what_they_belong_to(tmp_path, capsys, monkeypatch, offset):
    """The average of a training does not sum to 1. HR slices that the true kernel degrades are the LR slices."""
    truth, folder = make_gaussian_kernel((2.0, 1.0), 30, offset=offset), tmp_path / "new"
    shown, draw = [], module.draw_mscn
    monkeypatch.setattr(module, "draw_mscn", lambda path, images: draw(path, shown.append(images) or images))
    report(folder, [factor * truth for factor in (1.0, 0.9, 1.2)], loader_of(truth, offset), offset)
    assert {p.name for p in folder.iterdir()} == FILES
    assert all(imread(folder / name).std() > 0.05 for name in FILES if name.endswith("png"))
    data = json.loads((folder / "kernels_1.json").read_text())
    assert (data["hr_spacing_mm"], data["factor"], data["offset"]) == ([0.9, 1.1], 2, offset)
    found = read_kernels(folder)
    assert [(entry["volume"], entry["slice"]) for entry in found] == [("lr.nii", z) for z in range(3)]
    for entry in found:
        torch.testing.assert_close(entry["kernel"], truth, rtol=0, atol=1e-7)
        assert entry["fwhm"] == pytest.approx([4.71, 2.35], abs=0.01) and entry["angle"] == pytest.approx(30, abs=0.1)
        assert entry["centre"] == pytest.approx([offset, offset], abs=0.01) and entry["sum"] == pytest.approx(1)
    assert "warning" not in capsys.readouterr().out
    scans, estimated, gaussian = shown[0].values()
    assert len(scans) == len(estimated) == len(gaussian) == 3
    for lr, own, other in zip(scans, estimated, gaussian, strict=True):
        np.testing.assert_allclose(own, lr, atol=1e-6)
        assert np.abs(other - lr).max() > 0.02


def test_kernels_as_trained_are_neither_averaged_nor_centred(tmp_path):
    generator, pixel = KernelGenerator(3, 1, (13, 1)), make_gaussian_kernel(1.5, offset=1.0)
    for layer, value in zip(generator.layers, (0.9 * pixel, torch.ones(1, 1)), strict=True):
        layer.data[:] = value
    report(tmp_path, [make_gaussian_kernel(2.0)] * 3, loader_of(pixel), generator=generator)
    for entry in read_kernels(tmp_path):
        torch.testing.assert_close(entry["kernel"], pixel, rtol=0, atol=1e-6)


def test_a_run_that_had_finished_leaves_edited_kernels_alone(tmp_path):
    """The kernel of a volume belongs to no slice."""
    run = partial(report, tmp_path, [make_gaussian_kernel(1.5)], loader_of(make_gaussian_kernel(1.5), per="volume"))
    run()
    for name in FILES:
        (tmp_path / name).write_text("edited")
    run(done=2)
    assert {(tmp_path / name).read_text() for name in FILES} == {"edited"}
    run(done=1)
    assert [(entry["volume"], entry["slice"]) for entry in read_kernels(tmp_path)] == [("lr.nii", None)]


def test_kernels_narrower_than_a_pixel_are_warned_of(tmp_path, capsys):
    """HR and LR scans that were exchanged, or an LR scan that was interpolated to look like one."""
    report(tmp_path, [make_gaussian_kernel(sigma) for sigma in (1.5, 0.35, 0.3)], loader_of(make_bicubic_kernel(2)))
    has(capsys.readouterr().out, "2 of 3 kernels", "lr.nii")


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    loader = loader_of(make_gaussian_kernel(1.5))
    monkeypatch.setattr(module.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(module.dist, "get_rank", lambda: 1)
    report(tmp_path, [make_gaussian_kernel(1.5)] * 3, loader)
    assert not list(tmp_path.iterdir())
