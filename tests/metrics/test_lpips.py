"""LPIPS: what the network is shown, its weights, what is said where something is missing; the package is a stand-in."""

import sys
import types
from unittest import mock

import numpy as np
import pytest
import torch

from common.metrics.lpips import BATCH, Lpips
from tests.refused import refused

LAYERS = {"slice1": 0, "slice2": 3, "slice3": 6, "slice4": 8, "slice5": 10}


class StandIn(torch.nn.Module):
    """The mean absolute difference, with a backbone of which nothing but the names is used."""

    def __init__(self, net, pnet_rand=False, verbose=True):
        super().__init__()
        assert net == "alex" and not verbose
        self.pnet_rand, self.seen = pnet_rand, []
        self.net = torch.nn.Module()
        for name, index in LAYERS.items():
            self.net.add_module(name, torch.nn.ModuleDict({str(index): torch.nn.Conv2d(1, 1, 1)}))

    def forward(self, first, second):
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append((first, second))
        return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=StandIn))
    return sys.modules["lpips"]


@pytest.fixture
def weights(package, tmp_path):
    """A file as torchvision's, with layers that the backbone has not."""
    layers = {f"features.{i}": torch.nn.Conv2d(1, 1, 1) for i in LAYERS.values()}
    layers["classifier.1"] = torch.nn.Linear(2, 2)
    state = {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}
    torch.save(state, tmp_path / "alexnet.pth")
    return tmp_path / "alexnet.pth", state


def test_the_value_is_the_mean_over_slices_along_x_and_along_y(weights):
    """The distance is |2 (a - b)|: by hand over both sets, which count by their numbers of slices."""
    lpips = Lpips(weights[0])
    first, second = np.random.default_rng(0).random((2, 35, 40, 31), dtype=np.float32)
    second[:3] = first[:3]
    difference = 2 * abs(first - second)
    expected = (difference.mean(axis=(1, 2)).sum() + difference.mean(axis=(0, 2)).sum()) / (35 + 40)
    assert lpips.compute_score(first, second) == pytest.approx(expected, rel=1e-5)
    seen = [pair[0] for pair in lpips.network.seen]
    assert lpips.compute_score(torch.tensor(first), torch.tensor(first)) == 0
    assert len(seen) == -(-35 // BATCH) + -(-40 // BATCH) and max(len(images) for images in seen) == BATCH
    along_x, along_y = (torch.cat([s for s in seen if s.shape[2] == n]) for n in (40, 35))
    for found, grey in ((along_x, 2 * first - 1), (along_y, 2 * first.swapaxes(0, 1) - 1)):
        np.testing.assert_allclose(found, np.repeat(grey[:, None], 3, axis=1), atol=1e-6)


def test_the_backbone_has_the_weights_of_the_file_and_looks_for_no_others(weights):
    path, state = weights
    network = Lpips(str(path)).network
    assert network.pnet_rand
    for name, value in network.net.state_dict().items():
        assert torch.equal(value, state[f"features.{name.split('.', 1)[1]}"])
    assert not Lpips(True).network.pnet_rand


def test_refused(weights, tmp_path):
    path, state = weights
    lpips, shortest = Lpips(path), np.zeros((31, 31, 31))
    assert lpips.compute_score(shortest, shortest) == 0
    short, long, two, flat = shortest[1:], np.zeros((31, 31, 32)), np.zeros((2, 31, 31, 31)), shortest[0]
    for pair in ([shortest, long], [short, short], [two, two], [flat, flat]):
        found = f"{pair[0].shape} and {pair[1].shape}"
        refused(lambda pair=pair: lpips.compute_score(*pair), ValueError, "31 voxels", found)
    path.write_text("weights")
    refused(lambda: Lpips(path), ValueError, path)
    lacking = {key: value for key, value in state.items() if "features.6" not in key}
    for content, word in (
        (torch.zeros(2), "Tensor"),
        (lacking, "features.6.bias, features.6.weight"),
        ({**state, "features.3.weight": torch.zeros(2, 1, 1, 1)}, "slice2.3.weight"),
    ):
        torch.save(content, path)
        refused(lambda: Lpips(path), ValueError, path, word, "torchvision's")
    refused(lambda: Lpips(tmp_path / "nowhere.pth"), FileNotFoundError, "nowhere.pth", "torchvision's")


def refused_without_a_cause(kind, *words):
    """The command line shows the first cause of an error, so the message has none behind it."""
    with pytest.raises(kind) as caught:
        Lpips(True)
    assert caught.value.__cause__ is None and all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("error", [OSError("Name or service not known"), RuntimeError("invalid hash value")], ids=repr)
def test_without_internet_the_file_is_asked_for(package, error):
    package.LPIPS = mock.Mock(side_effect=error)
    refused_without_a_cause(OSError, "could not get the weights of AlexNet", str(error), "give their file")


@pytest.mark.parametrize(
    ("missing", "code", "word"),
    [
        ("lpips", None, "lpips"),
        ("torchvision", "from torchvision import models", "torchvision"),
        (None, "raise RuntimeError('operator torchvision::nms does not exist')", "torchvision::nms does not exist"),
    ],
)
def test_a_missing_package_or_a_torchvision_for_another_torch_is_named(monkeypatch, tmp_path, missing, code, word):
    """Of torchvision the lpips package says that it is not there, when it is imported."""
    for name in [name for name in sys.modules if name.split(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    if code:
        (tmp_path / "lpips.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
    words = ["pip install lpips torchvision", "that fits your torch", "leave out LPIPS"]
    refused_without_a_cause(ModuleNotFoundError, word, *words)
