"""The distance that VGG-16 sees, and that there is none without its weights."""

import torch

from common.losses import LossTable, PerceptualLoss
from common.networks import VGG16Features


def test_it_is_that_of_the_features_and_off_without_weights(tmp_path, capsys):
    path = tmp_path / "vgg.pth"
    shapes = {0: (64, 3), 2: (64, 64)}
    state = {f"features.{i}.weight": torch.randn(*size, 3, 3) / 20 for i, size in shapes.items()}
    torch.save(state | {f"features.{i}.bias": torch.randn(64) for i in shapes}, path)
    loss, features = PerceptualLoss(path, "relu1_2").to("cpu"), VGG16Features(path, "relu1_2")
    a, b = torch.rand(2, 2, 1, 12, 8, requires_grad=True)
    torch.testing.assert_close(loss(a, b), (features(a) - features(b)).square().mean())
    assert loss.given and not capsys.readouterr().out
    off = PerceptualLoss(None)
    assert "perceptual loss is off" in capsys.readouterr().out
    assert not LossTable({"perceptual": [0.5 * off.given, off, "a", "b"]}).to("cpu").terms
