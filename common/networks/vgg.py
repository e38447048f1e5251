"""Features of VGG-16, with the weights that torchvision publishes."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from ..io.files import load_state

# Number of convolutions, and channels, of each of the five parts (Simonyan and Zisserman 2015, table 1, D).
_PARTS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

# Mean and standard deviation of ImageNet's colours, on which the published weights were trained.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG16Features(nn.Module):
    """Features of a fixed, pretrained VGG-16 with torchvision's names (Johnson et al. 2016; Wang et al. 2023, eq. 4).

    Args:
        weights: torchvision's file ``vgg16-397923af.pth``.
        layer: ReLU that gives the features, "relu1_1" to "relu5_3".

    Raises:
        FileNotFoundError: if there is no file of weights; the message says how to get it.
        ValueError: if there is no such layer, or the file does not hold VGG-16's weights.
    """

    def __init__(self, weights: str | os.PathLike | None, layer: str = "relu4_3") -> None:
        super().__init__()
        body: list[nn.Module] = []
        ends: dict[str, int] = {}
        inputs = 3
        for part, (convolutions, channels) in enumerate(_PARTS, start=1):
            for i in range(1, convolutions + 1):
                body += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
                ends[f"relu{part}_{i}"] = len(body)
                inputs = channels
            body.append(nn.MaxPool2d(2))
        if layer not in ends:
            raise ValueError(f"vgg_layer is {layer!r}, expected one of {', '.join(ends)}.")
        self.features = nn.Sequential(*body[: ends[layer]])
        if weights is None or not Path(weights).is_file():
            raise FileNotFoundError(
                f"the perceptual loss needs the weights of VGG-16, found {weights or 'none'}. On a machine with "
                "torchvision and internet, torchvision.models.vgg16(weights='IMAGENET1K_V1') writes them to "
                "~/.cache/torch/hub/checkpoints/vgg16-397923af.pth. Name the file: --vgg_weights FILE. To train "
                "without this loss, give --lambda_3 0 and no --vgg_weights."
            )
        state = load_state(Path(weights), "cpu")
        tensors = {key: state.get(key) if isinstance(state, dict) else None for key in self.state_dict()}
        try:
            self.load_state_dict(tensors)
        except (AttributeError, RuntimeError, TypeError):
            raise ValueError(
                f"{weights}: not the weights of VGG-16, expected features.0.weight to {list(tensors)[-1]} with "
                "torchvision's shapes. Name torchvision's file: --vgg_weights FILE."
            ) from None
        self.requires_grad_(False)
        self.mean = nn.Buffer(torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.std = nn.Buffer(torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` in [-1, 1], as three equal colours, to features ``(B, C, h, w)``."""
        return self.features(((image + 1) / 2 - self.mean) / self.std)
