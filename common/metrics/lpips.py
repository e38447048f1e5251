"""LPIPS: how different two volumes look, by the features of a network that was trained on photographs."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from monai.config.type_definitions import NdarrayOrTensor
from torch import nn

from .metric import Metric

BATCH = 16  # slices at a time: their first features, for 512x512 pixels, take 70 MB
SHORTEST = 31  # pixels on each side of an image for AlexNet's last convolution


class Lpips(Metric):
    """LPIPS with AlexNet, as the ``lpips`` package computes it; 0 for equal volumes, smaller is more alike.

    Args:
        weights: file of AlexNet's weights as torchvision publishes them (alexnet-owt-7be5be79.pth); nothing is
            downloaded. Or True for the weights in torchvision's cache, which are downloaded if missing.

    Source:
        Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric, CVPR 2018.
    """

    def __init__(self, weights: str | os.PathLike | bool) -> None:
        # The command line shows the first cause of an error, so these hide the cause that they explain.
        try:
            import lpips
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision for another torch
            raise ModuleNotFoundError(
                f"LPIPS needs the packages lpips and torchvision, but: {error}. Install them: pip install lpips "
                "torchvision, with the torchvision that fits your torch; or leave out LPIPS."
            ) from None
        if weights is True:
            try:
                self.network = lpips.LPIPS(net="alex", verbose=False)
            except (OSError, RuntimeError) as error:  # no connection, or not the file that was expected
                raise OSError(
                    f"LPIPS: torchvision could not get the weights of AlexNet ({error}). Without internet, give their "
                    "file, alexnet-owt-7be5be79.pth; or leave out LPIPS."
                ) from None
        else:
            # pnet_rand: the package loads no backbone weights; they come from the file.
            self.network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
            _load_backbone(self.network.net, Path(weights))  # type: ignore[arg-type]
        self.network.eval()
        super().__init__(self.compute_score, "LPIPS", more_is_better=False)

    @torch.no_grad()
    def compute_score(self, sr: NdarrayOrTensor, hr: NdarrayOrTensor) -> float:
        """The mean LPIPS of all slices along X and Y, shown to the network as grey images in [-1, 1].

        Args:
            sr: floats of shape (X, Y, Z), singleton axes before it are ignored, in [0, 1]; each axis at least 31 long.
                The network runs on its device.
            hr: ground truth of the same shape and range.
        """
        volumes = [torch.as_tensor(volume).float() for volume in (sr, hr)]
        shapes = [tuple(volume.shape) for volume in volumes]
        size = shapes[0][-3:]
        if shapes[0] != shapes[1] or len(size) < 3 or volumes[0].numel() != math.prod(size) or min(size) < SHORTEST:
            raise ValueError(
                f"LPIPS compares two volumes of one shape (X, Y, Z), expected with at least {SHORTEST} voxels on each "
                f"axis, found {shapes[0]} and {shapes[1]}; leave out LPIPS."
            )
        volumes = [volume.reshape(size) for volume in volumes]
        self.network.to(volumes[0].device)
        values = []
        for axis in (0, 1):
            for parts in zip(*(volume.movedim(axis, 0).split(BATCH) for volume in volumes), strict=True):
                images = [2 * part[:, None].expand(-1, 3, -1, -1) - 1 for part in parts]
                values.append(self.network(*images).flatten().cpu())
        return float(torch.cat(values).mean())


def _load_backbone(net: nn.Module, path: Path) -> None:
    """Give lpips's backbone the weights of torchvision's AlexNet: its ``slice2.3`` is torchvision's ``features.3``."""
    advice = "expected torchvision's weights of AlexNet, alexnet-owt-7be5be79.pth; give their path."
    if not path.is_file():
        raise FileNotFoundError(f"LPIPS: {path} is no file; {advice}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the kind depends on the file
        raise ValueError(f"LPIPS: {path} cannot be read as weights ({type(error).__name__}); {advice}") from None
    if not isinstance(state, dict):
        raise ValueError(f"LPIPS: {path} holds a {type(state).__name__}; {advice}")
    names = {name: f"features.{name.split('.', 1)[1]}" for name in net.state_dict()}
    if missing := sorted(set(names.values()) - set(state)):
        raise ValueError(f"LPIPS: {path} lacks {', '.join(missing)}; {advice}")
    try:
        net.load_state_dict({name: state[origin] for name, origin in names.items()})
    except RuntimeError as error:
        raise ValueError(f"LPIPS: {path} is of another network ({error}); {advice}") from None
