"""VGG-16's features: torchvision's names and normalisation, fixed weights, and files that are refused."""

import pytest
import torch

from common.networks import VGG16Features

from ..refused import refused

# Index in torchvision's ``features``, channels in, channels out.
LAYERS = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256)]
LAYERS += [(17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512)]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as torchvision publishes it, and what is in it."""
    state = {"classifier.0.weight": torch.zeros(2), "classifier.6.bias": torch.zeros(1)}
    for i, inputs, outputs in LAYERS:
        state[f"features.{i}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        state[f"features.{i}.bias"] = 0.1 * torch.randn(outputs)
    path = tmp_path_factory.mktemp("vgg") / "vgg16-397923af.pth"
    torch.save(state, path)
    return path, state


def test_features_and_fixed_weights_are_those_of_torchvisions_network(published):
    (weights, state), image = published, 2 * torch.rand(2, 1, 16, 12) - 1
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    x = ((image + 1) / 2 - mean) / deviation
    for i in (0, 2, 5, 7):
        x = torch.max_pool2d(x, 2) if i == 5 else x
        x = torch.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1).relu()
    torch.testing.assert_close(VGG16Features(weights, "relu2_2")(image), x, atol=1e-4, rtol=1e-4)
    network, image = VGG16Features(weights, "relu5_3"), torch.zeros(1, 1, 32, 48, requires_grad=True)
    own = network.state_dict()
    assert own.keys() == {key for key in state if key.startswith("features.")}
    assert all(torch.equal(own[key], state[key]) for key in own)
    assert not any(p.requires_grad for p in network.parameters())
    features = network(image)
    assert features.shape == (1, 512, 2, 3) and features.min() == 0
    features.sum().backward()
    assert image.grad.abs().max() > 0 and list(VGG16Features(weights).state_dict())[-1] == "features.21.bias"


def test_refused(published, tmp_path):
    (weights, state), path = published, tmp_path / "other.pth"
    for layer in ("relu4_4", "relu2_3", "features.3"):
        refused(lambda layer=layer: VGG16Features(weights, layer), ValueError, repr(layer), "relu1_1, ", ", relu5_3")
    how = ["vgg16-397923af", "--vgg_weights FILE", "--lambda_3 0 and no --vgg_weights"]
    for missing in (None, "nowhere.pth", "."):
        refused(lambda missing=missing: VGG16Features(missing), FileNotFoundError, f"found {missing or 'none'}", *how)
    first = {f"features.{i}.{kind}": state[f"features.{i}.{kind}"] for i in (0, 2) for kind in ("weight", "bias")}
    torch.save(first, path)
    VGG16Features(path, "relu1_2")
    wrong = [{k: v for k, v in first.items() if k != "features.2.bias"}, {**first, "features.0.weight": torch.ones(64)}]
    for content in [*wrong, {**first, "features.2.bias": "text"}, {}, [1, 2], torch.ones(3), None]:
        torch.save(content, path)
        refused(lambda: VGG16Features(path, "relu1_2"), ValueError, path, "not the weights of VGG-16", "--vgg_weights")
    path.write_bytes(b"<html>")
    refused(lambda: VGG16Features(path, "relu1_2"), ValueError, path)
