"""Super-resolution of a volume by a 2-D network for its images in orthogonal directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from ..runtime.progress import part
from .pieces import over_pieces

_ON_A_GPU = 16  # images


class OrthogonalInferer(Inferer):
    r"""Runs a 2-D network over all images of a volume in several directions, by default the two with the last axis.

    The results are averaged, or combined by Fourier burst accumulation. Each frequency is then weighted by its
    magnitude to the power p:

    .. math:: X = \sum_i w_i X_i, \qquad w_i = |X_i|^p / \sum_j |X_j|^p

    Args:
        planes: axes of the volume (X, Y, Z) across which images are taken: 0 gives images (Y, Z), 1 gives (X, Z), and 2
            gives (X, Y), with ``keeps_size`` only.
        batch: images at once; None for 16 on a GPU, which a single image would not fill, and 1 elsewhere.
        power: p, at least 0; 0 gives the average.
        keeps_size: whether the network's output has the size of its input.

    Raises:
        ValueError: when ``planes`` are not such axes, or ``power`` is negative.

    Source:
        Zhao et al. 2021, section II-D, after Delbracio and Sapiro, Burst deblurring: removing camera shake through
        Fourier burst accumulation, IEEE CVPR 2015.
    """

    def __init__(
        self,
        planes: Sequence[int] = (0, 1),
        batch: int | None = None,
        power: float = 0.0,
        keeps_size: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(power, bool) or not isinstance(power, (int, float)) or not power >= 0:
            raise ValueError(f"power is {power!r}, expected a number of at least 0.")
        known = {0, 1, 2} if keeps_size else {0, 1}
        if not isinstance(planes, (list, tuple)) or not planes or len(set(planes) & known) != len(planes):
            some = "some of 0, 1 and 2" if keeps_size else "[0, 1], [0] or [1]"
            raise ValueError(f"planes is {planes}, expected {some}: axes across which images are taken.")
        self.planes, self.batch, self.power = tuple(planes), batch, power

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """``(B, 1, X, Y, Z)`` to ``(B, 1, X, Y, factor Z)``, float32.

        The network maps images ``(b, 1, H, W)`` to ``(b, 1, H, factor W)``. If images have the axis Z, it is the last.
        """
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        if len(volume) > 1:
            return torch.cat([self(one, network, *args, **kwargs) for one in volume.split(1)])
        results: list[torch.Tensor] = []
        for i, axis in enumerate(self.planes):
            with part(i, len(self.planes)):
                results.append(self._across(axis, volume, network, *args, **kwargs))
            if not self.power and i:
                results = [results[0].add_(results.pop())]  # saves memory
        if self.power and len(results) > 1:
            return _accumulated(results, self.power)
        return results[0].div_(len(self.planes))

    def _across(
        self, axis: int, volume: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run the network on all images across an axis of a volume ``(1, 1, X, Y, Z)``; returns a volume."""
        images = volume[0].movedim(axis + 1, 0)
        batch = self.batch or (_ON_A_GPU if volume.is_cuda else 1)
        out: Any = None
        done = 0
        for result in over_pieces(network, images.split(batch), *args, **kwargs):
            if out is None:
                size = [1, *result.shape[2:]]
                size.insert(axis + 1, len(images))
                out = result.new_empty(size)
            out.movedim(axis + 1, 0)[done : done + len(result)] = result
            done += len(result)
        return out.unsqueeze(0)


def _accumulated(results: Sequence[torch.Tensor], power: float) -> torch.Tensor:
    """Fourier burst accumulation of volumes ``(B, 1, X, Y, Z)``."""
    spectra = torch.stack([torch.fft.rfftn(result, dim=(2, 3, 4)) for result in results])
    # Powers of magnitudes would leave the range of float32; their quotients do not.
    magnitudes = spectra.abs().clamp_(min=torch.finfo(torch.float32).tiny)
    spectra *= magnitudes.log_().mul_(power).softmax(dim=0)
    return torch.fft.irfftn(spectra.sum(dim=0), s=results[0].shape[2:], dim=(2, 3, 4))
