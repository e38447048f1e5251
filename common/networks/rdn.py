"""Residual dense networks: RDN with an upsampler along one axis, and the guided RDN with its cascade."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..degradations.base import Degradation
from ..physics.scale import get_in_plane_number
from ..runtime.memory import to_channels_last
from ..runtime.values import check_whole_numbers
from .float32 import FromImage, make_last_layer
from .interpolation import AxisInterpolation
from .slab import batch_to_slices, slices_to_batch


class ResidualDenseBlock(nn.Module):
    """Densely connected 3x3 convolutions with ReLU, fused and added to the input (Zhang et al. 2018, fig. 3)."""

    def __init__(self, features: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(features + i * growth, growth, 3, padding=1) for i in range(layers))
        self.fusion = nn.Conv2d(features + layers * growth, features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dense = x
        for layer in self.layers:
            dense = torch.cat([dense, torch.relu(layer(dense))], dim=1)
        return x + self.fusion(dense)


class RDN(nn.Module):
    """Residual dense network that makes images finer along their last axis (Wang et al. 2023, section 2.1).

    With the default sizes and one channel, it has 21,972,800 parameters without the upsampler and the last convolution.

    Args:
        degradation: from HR to LR, along the last axis. It gives the factor and the positions of LR columns. One
            convolution computes the channels of all new columns.
        features: channels of the trunk.
        growth: channels that each layer of a block adds.
        blocks: residual dense blocks.
        layers: densely connected layers in each block.
        residual: whether the network learns the difference from cubic interpolation, with 0 at the start; False in the
            paper.
    """

    def __init__(
        self,
        degradation: Degradation,
        features: int = 64,
        growth: int = 64,
        blocks: int = 16,
        layers: int = 8,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.factor = factor = degradation.factors[2]
        self.base = AxisInterpolation(factor, degradation.offset[2]) if residual else None
        self.sizes = {"features": features, "growth": growth, "blocks": blocks, "layers": layers}
        self.sizes["residual"] = self.base is not None
        self.shallow = FromImage(1, features, 3, padding=1)
        self.head = nn.Conv2d(features, features, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualDenseBlock(features, growth, layers) for _ in range(blocks))
        self.fusion = nn.Sequential(
            nn.Conv2d(blocks * features, features, 1), nn.Conv2d(features, features, 3, padding=1)
        )
        self.upsampler = nn.Conv2d(features, factor * features, 3, padding=1)
        self.tail = make_last_layer(self.base is not None, features, 1, 3, padding=1)

    def encode(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to features ``(B, features, H, W)``."""
        shallow = self.shallow(lr)
        x = self.head(shallow)
        outputs: list[torch.Tensor] = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return shallow + self.fusion(torch.cat(outputs, dim=1))

    def decode(self, features: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
        """The features of ``lr``, and ``lr``, to ``(B, 1, H, factor W)``."""
        x = self.upsampler(features)
        batch, _, height, width = x.shape
        # Channels k * features to (k + 1) * features of column w give column factor * w + k of the result.
        x = x.reshape(batch, self.factor, -1, height, width).permute(0, 2, 3, 4, 1)
        sr = self.tail(x.reshape(batch, -1, height, width * self.factor))
        if self.base is not None:
            sr = sr + self.base(lr)
        return sr

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H, W)`` to ``(B, 1, H, factor W)``."""
        return self.decode(self.encode(lr), lr)


def _make_layer(inputs: int, features: int, convolution: type[nn.Conv2d] = nn.Conv2d) -> nn.Sequential:
    """3x3 convolution, batch norm and ReLU: one layer of the paper's fig. 2."""
    return nn.Sequential(
        convolution(inputs, features, 3, padding=1, bias=False), nn.BatchNorm2d(features), nn.ReLU(inplace=True)
    )


class GuidedResidualDenseBlock(nn.Module):
    """A residual dense block with ``guide_features`` channels of the guide's features, or 0, joined to its input."""

    def __init__(self, features: int, guide_features: int, layers: int) -> None:
        super().__init__()
        inputs = features + guide_features
        self.layers = nn.ModuleList(_make_layer(inputs + i * features, features) for i in range(layers))
        self.fusion = _make_layer(inputs + layers * features, features)

    def forward(self, x: torch.Tensor, guide: torch.Tensor | None) -> torch.Tensor:
        """``(B, features, H, W)`` and ``(B, guide_features, H, W)`` or None, to ``(B, features, H, W)``."""
        dense = x if guide is None else torch.cat([x, guide], dim=1)
        for layer in self.layers:
            dense = torch.cat([dense, layer(dense)], dim=1)
        return x + self.fusion(dense)


class GuidedRDN(nn.Module):
    """Guided residual dense network: an interpolated LR image and an HR guide of another contrast to an HR image.

    The trunk consists of guided residual dense blocks. A branch of convolutions reads the guide; its d-th layer gives
    the guide's features of the d-th block. The outputs of the blocks are fused and added to the interpolated image. The
    last convolution starts at zero, so an untrained network gives the interpolation.

    Args:
        guided: whether there is a guide. Without one, this is the paper's Model 1.
        features: channels of every layer.
        blocks: guided residual dense blocks.
        layers: densely connected layers in each block.
    """

    def __init__(self, guided: bool = True, features: int = 32, blocks: int = 6, layers: int = 4) -> None:
        super().__init__()
        self.guided = guided
        self.sizes = {"guided": self.guided, "features": features, "blocks": blocks, "layers": layers}
        self.head = nn.Sequential(_make_layer(1, features, FromImage), _make_layer(features, features))
        widths = [features if self.guided else 0] * blocks
        self.branch = nn.ModuleList(
            _make_layer(features, width) if i else _make_layer(1, width, FromImage)
            for i, width in enumerate(widths)
            if width
        )
        self.blocks: Any = nn.ModuleList(GuidedResidualDenseBlock(features, width, layers) for width in widths)
        self.fusion = nn.Sequential(_make_layer(blocks * features, features), _make_layer(features, features))
        self.tail = make_last_layer(True, features, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Interpolated LR and guide, ``(B, 2, H, W, Z)``, or LR only, ``(B, 1, H, W, Z)``, to ``(B, 1, H, W, Z)``."""
        planes = slices_to_batch(image)
        lr = planes[:, :1]
        guide: list[torch.Tensor] = []
        x = planes[:, 1:]
        for layer in self.branch:
            x = layer(x)
            guide.append(x)
        shallow = self.head(lr)
        x = shallow
        outputs: list[torch.Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x, guide[i] if self.guided else None)
            outputs.append(x)
        sr = lr + self.tail(shallow + self.fusion(torch.cat(outputs, dim=1)))
        return batch_to_slices(sr, image.shape[0])


class Cascade(nn.Module):
    """The networks of a cascade's stages as one module, so one file holds their weights.

    Args:
        stages: networks of one architecture, in the order of the stages.
        factor: in-plane factor of a stage. It is saved with the weights, which fit this factor only.

    Raises:
        ValueError: if loaded weights are for another factor.
    """

    def __init__(self, stages: Sequence[nn.Module], factor: float) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.sizes = getattr(stages[0], "sizes", {})
        self.factor = nn.Buffer(torch.tensor(float(factor), dtype=torch.float64))
        self.register_load_state_dict_pre_hook(_check_factor)

    def forward(self, image: torch.Tensor, stage: int = -1) -> torch.Tensor:
        """Apply the network of a stage (from 0; -1 is the last) to an image on the grid of the stage's output."""
        if stage < 0:
            stage = len(self.stages) + stage
        for i, network in enumerate(self.stages):  # a scripted module list takes no index
            if i == stage:
                return network(image)
        raise ValueError("the cascade has no such stage")


def make_cascade(network: Callable[[], nn.Module], scale: Sequence[int], stages: int = 1) -> Cascade:
    """A cascade of networks of one architecture.

    Args:
        network: makes the network of a stage; in JSON a network with ``"_mode_": "callable"``.
        scale: factors of the whole cascade, ``[n, n, 1]``; another scale is a ValueError.
        stages: number of stages, at least 1.
    """
    check_whole_numbers(cascade=stages)
    factor = get_in_plane_number(scale=scale) ** (1 / stages)
    return Cascade([network() for _ in range(stages)], factor)


class _SplitBlock(nn.Module):
    """A guided residual dense block for inference: the convolution of a concatenation is a sum of convolutions.

    As soon as features exist, one wide convolution computes their share in all later layers. So no convolution has many
    inputs and few outputs, which is slow. The block's batch norms must be folded into its convolutions.
    """

    def __init__(self, block: GuidedResidualDenseBlock) -> None:
        super().__init__()
        convolutions = [layer[0] for layer in [*block.layers, block.fusion]]
        self.features = convolutions[0].out_channels
        first = convolutions[0].in_channels
        self.shares = nn.ModuleList([self._split_convolution(convolutions, 0, first)])
        for i in range(1, len(convolutions)):
            self.shares.append(
                self._split_convolution(convolutions[i:], first + (i - 1) * self.features, self.features)
            )
        self.shares[0].bias = nn.Parameter(torch.cat([c.bias for c in convolutions]))

    @staticmethod
    def _split_convolution(convolutions: Sequence[nn.Conv2d], start: int, inputs: int) -> nn.Conv2d:
        weight = torch.cat([c.weight[:, start : start + inputs] for c in convolutions])
        share = nn.Conv2d(inputs, len(weight), 3, padding=1, bias=False)
        share.weight = nn.Parameter(weight.detach().clone())
        return share

    def forward(self, x: torch.Tensor, guide: torch.Tensor | None) -> torch.Tensor:
        """As :class:`GuidedResidualDenseBlock`."""
        features = x if guide is None else torch.cat([x, guide], dim=1)
        sums = torch.zeros(0)
        for i, share in enumerate(self.shares):
            new = share(features)
            if i > 0:
                new += sums[:, self.features :]
            sums = new
            features = torch.relu(sums[:, : self.features])
        return x + features


def _check_factor(cascade: Cascade, state: dict[str, torch.Tensor], prefix: str, *_: object) -> None:
    stored, expected = (float(factor) for factor in (state.get(f"{prefix}factor", cascade.factor), cascade.factor))
    if abs(stored - expected) > 1e-6:
        count = len(cascade.stages)
        raise ValueError(
            f"the weights are for {count} stages of factor {stored:.4g} (scale {stored**count:.4g}), the config has "
            f"{expected:.4g} (scale {expected**count:.4g}); set scale to the scale of the training."
        )


def prepare_for_inference(network: nn.Module) -> nn.Module:
    """Copy a network in evaluation mode in a form that needs less time and memory; results are equal up to rounding.

    Batch norms after a convolution in an ``nn.Sequential`` are folded into it. Guided residual dense blocks compute
    each layer's input as a sum instead of a concatenation. The copy is for inference only: its weights have other
    names. A network in training mode is a ValueError.
    """
    if network.training:
        raise ValueError("prepare_for_inference needs a network in evaluation mode: call network.eval() first.")
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                if isinstance(module[i], nn.Conv2d) and isinstance(module[i + 1], nn.BatchNorm2d):
                    module[i], module[i + 1] = fuse_conv_bn_eval(module[i], module[i + 1]), nn.Identity()  # type: ignore[type-var, arg-type]
    for module in list(network.modules()):
        if isinstance(module, GuidedRDN):
            module.blocks = nn.ModuleList(_SplitBlock(block) for block in module.blocks)
    return to_channels_last(network, next(network.parameters()).device).eval()
