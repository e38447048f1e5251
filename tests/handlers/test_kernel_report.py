"""What an estimation leaves behind: a file of kernels that serves the next stage, and two pictures."""

import json

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from matplotlib.image import imread

from common.blur_kernels import bicubic_kernel, gaussian_kernel, read_kernels
from common.data import KernelCropLoader, VolumeCache, kernel_cases
from common.degradations import InPlaneKernel
from common.handlers import KernelReport
from common.handlers import kernel_report as module
from common.networks import KernelGenerator
from tests.bundles.runs import phantom

FILES = {"kernels_1.json", "kernels_1.png", "kernels_1_mscn.png"}


def loader_of(kernel, offset=0.0, per="slice"):
    hr = torch.from_numpy(phantom(0, (48, 44, 24))[..., 10:13]).float()[None] / 1000
    volumes = {"hr": hr, "lr": InPlaneKernel(kernel, 2, offset)(hr)}
    caches = [
        VolumeCache([{key: f"{key}.nii", "subject": "a"}], lambda e, k=key: {k: volumes[k]}, [key]) for key in volumes
    ]
    return KernelCropLoader(*caches, kernel_cases(*caches, per), 16, 8, 1, seed=0, device="cpu")


def report_of(folder, kernels, loader, offset=0.0, done=0):
    """A training of 4 iterations, or one that had finished, at whose end the average kernels are these."""
    generator = KernelGenerator(len(kernels), 2)
    generator.average.copy_(kernels)
    engine = Engine(lambda *_: None)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", done))
    KernelReport(folder / "kernels_1.json", generator, loader, [0.9, 1.1], 2, offset).attach(engine)
    return lambda: engine.run(range(2), max_epochs=2)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_kernels_are_written_with_what_they_belong_to(tmp_path, capsys, offset):
    truth = gaussian_kernel((2.0, 1.0), 30, offset=offset)
    loader = loader_of(truth, offset)
    # The average of a training does not sum to 1.
    kernels = torch.stack([factor * truth for factor in (1.0, 0.9, 1.2)])
    report_of(tmp_path / "new", kernels, loader, offset)()
    assert {p.name for p in (tmp_path / "new").iterdir()} == FILES
    assert all(imread(tmp_path / "new" / name).std() > 0.05 for name in FILES if name.endswith("png"))
    data = json.loads((tmp_path / "new" / "kernels_1.json").read_text())
    assert (data["hr_spacing_mm"], data["factor"], data["offset"]) == ([0.9, 1.1], 2, offset)
    found = read_kernels(tmp_path / "new")
    assert [(entry["volume"], entry["slice"]) for entry in found] == [("lr.nii", z) for z in range(3)]
    for entry in found:
        torch.testing.assert_close(entry["kernel"], truth, rtol=0, atol=1e-7)
        assert entry["fwhm"] == pytest.approx([4.71, 2.35], abs=0.01) and entry["angle"] == pytest.approx(30, abs=0.1)
        assert entry["centre"] == pytest.approx([offset, offset], abs=0.01) and entry["sum"] == pytest.approx(1)
    said = capsys.readouterr().out
    assert "distance of MSCN" in said and "warning" not in said


def test_the_kernel_of_a_volume_belongs_to_no_slice(tmp_path):
    loader = loader_of(gaussian_kernel(1.5), per="volume")
    report_of(tmp_path, gaussian_kernel(1.5)[None], loader)()
    assert [(entry["volume"], entry["slice"]) for entry in read_kernels(tmp_path)] == [("lr.nii", None)]


def test_pictures_compare_lr_slices_with_hr_slices_that_the_kernels_degrade(tmp_path, monkeypatch):
    """Where the kernel is the true one, of a case whose slices are in the same place, they are the same."""
    truth, shown = gaussian_kernel((2.0, 1.0), 30), []
    monkeypatch.setattr("common.reports.mscn_figure", lambda path, images: shown.append(images))
    loader = loader_of(truth)
    report_of(tmp_path, truth.expand(3, -1, -1).clone(), loader)()
    scans, estimated, gaussian = shown[0].values()
    assert len(scans) == len(estimated) == len(gaussian) == 3
    for lr, own, other in zip(scans, estimated, gaussian, strict=True):
        np.testing.assert_allclose(own, lr, atol=1e-6)
        assert np.abs(other - lr).max() > 0.02


def test_a_run_that_had_finished_leaves_edited_kernels_alone(tmp_path):
    kernels, loader = gaussian_kernel(1.5).expand(3, -1, -1).clone(), loader_of(gaussian_kernel(1.5))
    report_of(tmp_path, kernels, loader)()
    for name in FILES:
        (tmp_path / name).write_text("edited")
    report_of(tmp_path, kernels, loader, done=2)()
    assert {(tmp_path / name).read_text() for name in FILES} == {"edited"}
    report_of(tmp_path, kernels, loader, done=1)()
    assert len(read_kernels(tmp_path)) == 3


def test_kernels_narrower_than_a_pixel_are_warned_of(tmp_path, capsys):
    """HR and LR scans that were exchanged, or an LR scan that was interpolated to look like one."""
    kernels = torch.stack([gaussian_kernel(1.5), gaussian_kernel(0.35), gaussian_kernel(0.3)])
    report_of(tmp_path, kernels, loader_of(bicubic_kernel(2)))()
    said = capsys.readouterr().out
    assert "warning: 2 of 3 kernels are narrower than an HR pixel" in said and "lr.nii" in said


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    loader = loader_of(gaussian_kernel(1.5))
    monkeypatch.setattr(module.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(module.dist, "get_rank", lambda: 1)
    report_of(tmp_path, gaussian_kernel(1.5).expand(3, -1, -1).clone(), loader)()
    assert not list(tmp_path.iterdir())
