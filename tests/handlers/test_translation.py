"""The picture of translations: what it shows, how it lies, and that training does not notice it."""

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from matplotlib.image import imread
from monai.data import MetaTensor
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from torch import nn

from common.data import VolumeCache
from common.degradations import GaussianProfile
from common.graph import TensorGraph
from common.handlers import TranslationReport
from common.handlers import translation_report as handler
from common.reports import draw_translation as draw
from common.reports import features as report

AFFINES = {"hr": np.diag([0.5, 0.6, 0.7, 1.0])}
AFFINES |= {"lr": np.array([[0, 0, 4.0, 3], [-1, 0, 0, 2], [0, 1.5, 0, 1], [0, 0, 0, 1]])}
STEPS = {"mr": ["up", "lr"], "ct_fake": ["to_ct", "mr", "prior_ct"], "mr_cycle": ["back", "ct_fake", "prior_mr"]}
STEPS |= {"mr_fake": ["to_mr", "hr", "prior_mr"], "ct_cycle": ["back", "mr_fake", "prior_ct"]}


class Up(nn.Module):
    epoch = 0

    def forward(self, x):
        return nn.functional.dropout(x.repeat_interleave(2, dim=3) * 0.5, 0.5, self.training) + 0.01 * self.epoch


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x, code):
        assert not torch.is_grad_enabled() and code.shape == (1, 8)
        return self.factor * x + 0.01 * code.sum()


def train(path):
    """Attach a report to a training that changes the network; its graph, the first volumes and the random state."""
    volumes = {"lr": torch.rand(1, 7, 10, 9), "hr": torch.rand(1, 6, 15, 18)}
    caches = [
        VolumeCache([{k: "a.nii"}, {}], lambda case, k=k: {k: MetaTensor(volumes[k] * bool(case), AFFINES[k])}, [k])
        for k in AFFINES
    ]
    networks = {"up": Up(), "to_ct": Times(-1.0), "to_mr": Times(0.4), "back": Times(0.7)}
    engine = Engine(lambda engine, _: setattr(networks["up"], "epoch", engine.state.epoch))
    engine.graph = TensorGraph(networks, STEPS, ["hr", "lr", "prior_mr", "prior_ct"])
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "device", torch.device("cpu")))
    torch.manual_seed(5)
    source, target = caches
    TranslationReport(path, source, target, GaussianProfile((1, 1, 2))).attach(engine)
    engine.run(range(1), max_epochs=2)
    return engine.graph, volumes, torch.get_rng_state()


def test_rows_hold_the_first_volumes_and_what_the_networks_make_of_them(tmp_path, monkeypatch):
    """Training does not notice it: neither the networks nor the random numbers."""
    shown, path = [], tmp_path / "new" / "translation.png"
    target = "common.handlers.translation_report.draw_translation"
    monkeypatch.setattr(target, lambda *drawn: shown.append(drawn) or draw(*drawn))
    graph, volumes, after = train(path)
    torch.manual_seed(5)
    assert torch.equal(after, torch.get_rng_state()) and all(module.training for module in graph.modules())
    assert [file.name for file in path.parent.iterdir()] == ["translation.png"] and imread(path).std() > 0.05
    code = 0.01 * torch.randn(1, 8, generator=torch.Generator().manual_seed(0)).sum().item()
    lr, hr = 2 * volumes["lr"][:, 3, :8, :8].numpy() - 1, 2 * volumes["hr"][:, 3, :12, :16].numpy() - 1
    thick = lr.repeat(2, axis=-1)
    assert [drawn for drawn, _ in shown] == [path] * 2
    for epoch, (_, rows) in enumerate(shown, start=1):
        sr = 0.5 * thick + 0.01 * epoch
        ct, mr = -sr + code, 0.4 * hr + code
        expected = {"MR": {"thick slices": thick, "SR": sr, "as CT": ct, "back": 0.7 * ct + code}}
        expected |= {"CT": {"CT": hr, "as MR": mr, "back": 0.7 * mr + code}}
        assert list(rows) == list(expected)
        for name, (images, affine) in rows.items():
            assert list(images) == list(expected[name])
            for title, image in images.items():
                np.testing.assert_allclose(image, expected[name][title], atol=1e-6, err_msg=title)
            # That of the thin slices, two of which lie half a thin slice from the centre of a thick one.
            thin = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, -0.25], [0, 0, 0, 1]]
            np.testing.assert_allclose(affine, AFFINES["hr"] if name == "CT" else AFFINES["lr"] @ thin)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(handler.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(handler.dist, "get_rank", lambda: 1)
    train(tmp_path / "translation.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stored", ["RAS", "LIP", "PSR", "AIL", "SAR", "IRP"])
def test_planes_lie_as_radiologists_read_them(tmp_path, monkeypatch, stored):
    """However a volume is stored, anterior or superior is up, and the patient's right, or front, on the left."""
    figures, spacing = [], [1.0, 2.0, 3.0]
    monkeypatch.setattr(report, "save_figure", lambda figure, path: figures.append(figure))
    volume = np.random.default_rng(0).uniform(-1, 1, (5, 7, 9))
    image = nib.Nifti1Image(volume, np.diag([*spacing, 1]))
    image = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(stored)))
    stack = np.asarray(image.dataobj)
    plane, normal = stack[len(stack) // 2][None], int(axcodes2ornt(stored)[0, 0])
    across, up = (axis for axis in range(3) if axis != normal)
    expected = volume.take(volume.shape[normal] // 2, axis=normal)
    rows = {"MR": ({"SR": plane, "back": -plane}, image.affine), "CT": ({"CT": 0.5 * plane}, image.affine)}
    draw(tmp_path / "x.png", rows)
    panels = figures[0].axes
    for panel, title, factor in zip(panels, ["SR", "back", "CT"], [1, -1, 0.5], strict=False):
        (picture,) = panel.images
        np.testing.assert_allclose(picture.get_array(), factor * expected.T)
        assert picture.origin == "lower" and picture.get_clim() == (-1, 1) and panel.get_title() == title
        left, right, bottom, top = *panel.get_xlim(), *panel.get_ylim()
        size = expected.shape[0] * spacing[across], expected.shape[1] * spacing[up]
        assert (left - right, top - bottom) == pytest.approx(size)
    assert len(panels) == 4 and not panels[3].images and not panels[3].axison
    ends = [*reversed(("LR", "PA", "IS")[across]), *reversed(("LR", "PA", "IS")[up])]
    assert [[text.get_text() for text in panel.texts] for panel in panels] == [[*ends, "MR"], [], [*ends, "CT"], []]
