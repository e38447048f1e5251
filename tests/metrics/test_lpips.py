"""LPIPS: what the network is shown, its weights, and what is said where something is missing.

Torchvision is no requirement, so a stand-in takes the place of the lpips package; its layers have lpips's names.
"""

import sys
import types

import numpy as np
import pytest
import torch

from common.metrics.lpips import BATCH, Lpips

LAYERS = {"slice1": 0, "slice2": 3, "slice3": 6, "slice4": 8, "slice5": 10}


class StandIn(torch.nn.Module):
    """The mean absolute difference, with a backbone of which nothing but the names is used."""

    def __init__(self, net, pnet_rand=False, verbose=True):
        super().__init__()
        assert net == "alex" and not verbose
        self.pnet_rand, self.seen = pnet_rand, []
        self.net = torch.nn.Module()
        for name, index in LAYERS.items():
            part = torch.nn.Sequential()
            part.add_module(str(index), torch.nn.Conv2d(1, 1, 1))
            self.net.add_module(name, part)

    def forward(self, first, second):
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append((first, second))
        return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def package(monkeypatch):
    module = types.ModuleType("lpips")
    module.LPIPS = StandIn
    monkeypatch.setitem(sys.modules, "lpips", module)
    return module


@pytest.fixture
def weights(tmp_path):
    """A file as torchvision's, with layers that the backbone has not."""
    layers = {f"features.{i}": torch.nn.Conv2d(1, 1, 1) for i in LAYERS.values()} | {
        "classifier.1": torch.nn.Linear(2, 2)
    }
    state = {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}
    torch.save(state, tmp_path / "alexnet.pth")
    return tmp_path / "alexnet.pth", state


def test_the_value_is_the_mean_over_slices_along_x_and_along_y(package, weights):
    """The distance is |2 (a - b)|: by hand over both sets, which count by their numbers of slices."""
    lpips = Lpips(weights[0])
    rng = np.random.default_rng(0)
    first, second = (rng.random((35, 40, 31), dtype=np.float32) for _ in range(2))
    second[:3] = first[:3]
    difference = 2 * abs(first - second)
    expected = (difference.mean(axis=(1, 2)).sum() + difference.mean(axis=(0, 2)).sum()) / (35 + 40)
    assert lpips.score(first, second) == pytest.approx(expected, rel=1e-5)
    assert lpips.score(torch.tensor(first), torch.tensor(first)) == 0
    seen = [pair[0] for pair in lpips.network.seen[: -(-35 // BATCH) + -(-40 // BATCH)]]
    assert max(len(images) for images in seen) == BATCH
    along_x, along_y = (torch.cat([s for s in seen if s.shape[2] == n]) for n in (40, 35))
    assert along_x.shape == (35, 3, 40, 31) and along_y.shape == (40, 3, 35, 31)
    for channel in range(3):
        np.testing.assert_allclose(along_x[:, channel], 2 * first - 1, atol=1e-6)
        np.testing.assert_allclose(along_y[:, channel], 2 * first.swapaxes(0, 1) - 1, atol=1e-6)


def test_the_backbone_has_the_weights_of_the_file_and_looks_for_no_others(package, weights):
    path, state = weights
    network = Lpips(str(path)).network
    assert network.pnet_rand
    for name, index in LAYERS.items():
        layer = getattr(getattr(network.net, name), str(index))
        assert torch.equal(layer.weight, state[f"features.{index}.weight"])
        assert torch.equal(layer.bias, state[f"features.{index}.bias"])
    assert not Lpips(True).network.pnet_rand and not Lpips("true").network.pnet_rand


def test_other_files_are_refused(package, weights, tmp_path):
    path, state = weights
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth is no file; expected torchvision's .*--lpips FILE"):
        Lpips(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(ValueError, match=r"text\.pth cannot be read as weights .*--lpips FILE"):
        Lpips(tmp_path / "text.pth")
    torch.save(torch.zeros(2), path)
    with pytest.raises(ValueError, match=r"alexnet\.pth holds a Tensor"):
        Lpips(path)
    torch.save({key: value for key, value in state.items() if "features.6" not in key}, path)
    with pytest.raises(ValueError, match=r"alexnet\.pth lacks features\.6\.bias, features\.6\.weight; expected"):
        Lpips(path)
    torch.save({**state, "features.3.weight": torch.zeros(2, 1, 1, 1)}, path)
    with pytest.raises(ValueError, match=r"(?s)alexnet\.pth is of another network .*slice2\.3\.weight"):
        Lpips(path)


@pytest.mark.parametrize(
    "shapes", [((31, 31, 31), (31, 31, 32)), ((31, 31, 30),) * 2, ((30, 31, 31),) * 2, ((1, 31, 31, 31),) * 2]
)
def test_volumes_that_cannot_be_compared_are_refused(package, weights, shapes):
    lpips = Lpips(weights[0])
    with pytest.raises(ValueError, match="at least 31 voxels on each axis, found ") as error:
        lpips.score(*(np.zeros(shape, np.float32) for shape in shapes))
    assert str(shapes[0]) in str(error.value)
    with pytest.raises(ValueError, match="one shape"):
        lpips.score(np.zeros((31, 31)), np.zeros((31, 31)))


@pytest.mark.parametrize("error", [OSError("Name or service not known"), RuntimeError("invalid hash value")])
def test_without_internet_the_file_is_asked_for(package, error):
    """The message has no cause behind it, because the command line shows the first cause of an error."""

    def offline(**_):
        raise error

    package.LPIPS = offline
    with pytest.raises(OSError, match=rf"could not get the weights of AlexNet \({error}\).*--lpips FOLDER/") as caught:
        Lpips(True)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("missing", ["lpips", "torchvision"])
def test_a_missing_package_is_named(monkeypatch, tmp_path, missing):
    """Of torchvision the lpips package says that it is not there, when it is imported."""
    for name in [name for name in sys.modules if name.split(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "torchvision":
        (tmp_path / "lpips.py").write_text("from torchvision import models")
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=rf"{missing}.*pip install lpips torchvision.*leave out --lpips") as e:
        Lpips(True)
    assert e.value.__cause__ is None


def test_a_torchvision_for_another_torch_is_named(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    (tmp_path / "lpips.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"torchvision::nms does not exist.* that fits your torch"):
        Lpips(True)
