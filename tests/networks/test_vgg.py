"""VGG-16's features: torchvision's names and normalisation, fixed weights, and files that are refused."""

import pytest
import torch
from torch.nn import functional as F

from common.networks import VGG16Features

# Index in torchvision's ``features``, channels in, channels out.
LAYERS = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256)]
LAYERS += [(17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512)]


@pytest.fixture(scope="module")
def state():
    generator = torch.Generator().manual_seed(0)
    state = {"classifier.0.weight": torch.zeros(2), "classifier.6.bias": torch.zeros(1)}
    for i, inputs, outputs in LAYERS:
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
        state[f"features.{i}.weight"] = weight * (2 / (9 * inputs)) ** 0.5
        state[f"features.{i}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return state


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg16-397923af.pth"
    torch.save(state, path)
    return path


def test_features_are_those_of_torchvisions_network(state, weights):
    image = 2 * torch.rand(2, 1, 16, 12) - 1
    colours = ((image + 1) / 2).expand(-1, 3, -1, -1)
    x = torch.stack(
        [(colours[:, i] - m) / s for i, (m, s) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)])], 1
    )
    for i in (0, 2, 5, 7):
        x = F.max_pool2d(x, 2) if i == 5 else x
        x = F.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1).relu()
    torch.testing.assert_close(VGG16Features(weights, "relu2_2")(image), x, atol=1e-4, rtol=1e-4)


def test_it_has_torchvisions_parameters_and_they_are_fixed(state, weights):
    network = VGG16Features(weights, "relu5_3")
    assert sum(p.numel() for p in network.parameters()) == 14_714_688
    own = network.state_dict()
    assert own.keys() == {key for key in state if key.startswith("features.")}
    assert all(torch.equal(own[key], state[key]) for key in own)
    assert not any(p.requires_grad for p in network.parameters())
    image = torch.zeros(1, 1, 32, 48, requires_grad=True)
    features = network(image)
    assert features.shape == (1, 512, 2, 3) and features.min() == 0
    features.sum().backward()
    assert image.grad.abs().max() > 0


def test_the_layer_is_the_fourth_parts_last_unless_another_is_named(weights):
    assert list(VGG16Features(weights).state_dict())[-1] == "features.21.bias"
    for layer in ("relu4_4", "relu2_3", "features.3"):
        with pytest.raises(ValueError, match=rf"vgg_layer is '{layer}', expected one of relu1_1, .*, relu5_3"):
            VGG16Features(weights, layer)


@pytest.mark.parametrize("missing", [None, "nowhere.pth", "."])
def test_how_to_get_the_weights_is_said(missing):
    with pytest.raises(FileNotFoundError, match=r"found .*vgg16-397923af.*--vgg_weights FILE.*--lambda_3 0") as error:
        VGG16Features(missing)
    assert (missing or "found none") in str(error.value)


def test_files_of_something_else_are_refused(state, tmp_path):
    first = {f"features.{i}.{kind}": state[f"features.{i}.{kind}"] for i in (0, 2) for kind in ("weight", "bias")}
    path = tmp_path / "other.pth"
    torch.save(first, path)
    VGG16Features(path, "relu1_2")
    wrong = [{k: v for k, v in first.items() if k != "features.2.bias"}, {**first, "features.0.weight": torch.ones(64)}]
    for content in [*wrong, {**first, "features.2.bias": "text"}, {}, [1, 2], torch.ones(3), None]:
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"other\.pth: not the weights of VGG-16.*--vgg_weights"):
            VGG16Features(path, "relu1_2")
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"other\.pth: not a checkpoint"):
        VGG16Features(path, "relu1_2")
