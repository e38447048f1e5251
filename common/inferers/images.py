"""Run 2-D networks over the images of a volume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import nn

from ..degradations.base import Degradation, remove_metadata
from ..degradations.interpolation import interpolate
from ..geometry.spline import apply_along_axes, make_spline_matrix
from ..networks.slab import batch_to_slices, slices_to_batch
from ..physics.scale import choose_zero_shot_images
from ..runtime.precision import match_precision
from ..runtime.progress import report_progress, track
from ..runtime.workers import run_in_parallel
from .consistent import ConsistentInferer

# Memory of the activations per pixel: 64 features of 16 layers of an RDN, and as much for temporary tensors.
_PIXEL_BYTES = 8192
_ON_A_GPU = 16  # images at once


def run_in_pieces(
    network: Callable[..., torch.Tensor], pieces: Sequence[torch.Tensor], *args: Any, **kwargs: Any
) -> Iterator[torch.Tensor]:
    """Yield the network's result for each piece, in order, as float32; a CPU works on several at once.

    Args:
        network: called with a piece and the further arguments.
        pieces: images or slices ``(b, ...)``, on one device, at least one.
    """
    size = max(piece.numel() for piece in pieces) * _PIXEL_BYTES

    def run_network(piece: torch.Tensor) -> torch.Tensor:
        return network(piece.contiguous(), *args, **kwargs).float()

    for i, result in enumerate(run_in_parallel(run_network, pieces, pieces[0].device, size)):
        yield result
        report_progress((i + 1) / len(pieces))


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

    Source:
        Zhao et al. 2021, section II-D, after Delbracio and Sapiro, IEEE CVPR 2015.
    """

    def __init__(
        self, planes: Sequence[int] = (0, 1), batch: int | None = None, power: float = 0.0, keeps_size: bool = False
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
        volume = remove_metadata(inputs)
        if len(volume) > 1:
            return torch.cat([self(one, network, *args, **kwargs) for one in volume.split(1)])
        results: list[torch.Tensor] = []
        for axis in track(self.planes):
            results.append(self._run_across(axis, volume, network, *args, **kwargs))
            if not self.power and len(results) > 1:
                results = [results[0].add_(results.pop())]  # saves memory
        if self.power and len(results) > 1:
            return _accumulate_fourier_bursts(results, self.power)
        return results[0].div_(len(self.planes))

    def _run_across(
        self, axis: int, volume: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run the network on all images across an axis of a volume ``(1, 1, X, Y, Z)``; returns a volume."""
        images = volume[0].movedim(axis + 1, 0)
        batch = self.batch or (_ON_A_GPU if volume.is_cuda else 1)
        out: Any = None
        done = 0
        for result in run_in_pieces(network, images.split(batch), *args, **kwargs):
            if out is None:
                size = [1, *result.shape[2:]]
                size.insert(axis + 1, len(images))
                out = result.new_empty(size)
            out.movedim(axis + 1, 0)[done : done + len(result)] = result
            done += len(result)
        return out.unsqueeze(0)


class AntiAliasingInferer(OrthogonalInferer):
    """Removes aliasing in the images of one direction, then blur in those of the other, and averages both orders.

    Images are taken across ``planes``, [0, 1], [0] or [1], to remove blur, and across the other axis in plane to remove
    aliasing. A network without a part ``anti_aliasing`` is applied as a whole across ``planes``.

    Args:
        planes, batch, power: as of :class:`OrthogonalInferer`.

    Source:
        Zhao et al. 2021, section II.
    """

    def __init__(self, planes: Sequence[int] = (0, 1), batch: int | None = None, power: float = 0.0) -> None:
        super().__init__(planes, batch, power)

    def _run_across(
        self, axis: int, volume: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        if not isinstance(network, nn.Module) or not hasattr(network, "anti_aliasing"):
            return super()._run_across(axis, volume, network, *args, **kwargs)
        for name, across in track((("anti_aliasing", 1 - axis), ("super_resolution", axis))):
            part = getattr(network, name)
            if not isinstance(part, nn.Identity):
                volume = super()._run_across(across, volume, match_precision(network, part), *args, **kwargs)
        return volume


def _accumulate_fourier_bursts(results: Sequence[torch.Tensor], power: float) -> torch.Tensor:
    """Fourier burst accumulation of volumes ``(B, 1, X, Y, Z)``."""
    spectra = torch.stack([torch.fft.rfftn(result, dim=(2, 3, 4)) for result in results])
    # Powers of magnitudes would leave the range of float32; their quotients do not.
    magnitudes = spectra.abs().clamp_(min=torch.finfo(torch.float32).tiny)
    spectra *= magnitudes.log_().mul_(power).softmax(dim=0)
    return torch.fft.irfftn(spectra.sum(dim=0), s=results[0].shape[2:], dim=(2, 3, 4))


class EnsembleInferer(Inferer):
    """Runs an inferer with the median of a 2-D network's results for mirrored and turned forms of each image.

    There are four mirrored forms. If images lack the same detail along both axes, forms turned by 90 degrees can be
    added. Each result is mirrored and turned back. The median of an even number is the mean of the middle two.

    Args:
        inferer: runs the network over a volume, image by image.
        rotations: whether images are turned too: eight forms, not four.
        enabled: whether forms are used at all; else only the image itself.

    Source:
        Shocher et al. 2018, section 3.1.
    """

    def __init__(self, inferer: Inferer, rotations: bool, enabled: bool = True) -> None:
        super().__init__()
        self.inferer, self.enabled = inferer, enabled
        ways = (False, True) if rotations else (False,)
        self.forms = [(way, axes) for way in ways for axes in ([], [2], [3], [2, 3])]

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the inferer; the network maps images ``(b, 1, H, W)`` to images of the same size."""

        def compute_median(images: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            results = []
            for is_transposed, axes in self.forms:
                form = (images.transpose(2, 3) if is_transposed else images).flip(axes)
                result = network(form, *args, **kwargs).flip(axes)
                results.append(result.transpose(2, 3) if is_transposed else result)
            ordered = torch.stack(results).sort(dim=0).values
            half = len(results) // 2
            return ordered[half - 1 : half + 1].mean(dim=0)

        return self.inferer(inputs, compute_median if self.enabled else network, *args, **kwargs)


class InterpolatedInferer(Inferer):
    """Interpolates a volume onto the HR grid by a cubic spline, and runs an inferer there.

    Args:
        inferer: runs the network over a volume, whose size it keeps.
        degradation: from HR to the volume; its factors need not be whole.
    """

    def __init__(self, inferer: Inferer, degradation: Degradation) -> None:
        super().__init__()
        self.inferer, self.degradation = inferer, degradation

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """``(B, 1, X, Y, Z)`` to ``(B, 1, *hr)``, with the voxels that ``degradation.hr_size`` gives."""
        volume = remove_metadata(inputs)
        return self.inferer(interpolate(volume, self.degradation).contiguous(), network, *args, **kwargs)


class SliceInsertionInferer(Inferer):
    """Inserts slices half-way between neighbours until they are half a thin slice apart, and selects the thin slices.

    Thin slices are not at the positions of thick ones: for a factor of 2, they are at -1/4 and 1/4 of the distance. So
    the distance is halved once more than their number needs. If the factor is not a power of 2, a cubic spline samples
    the thin slices. The outermost slices are repeated outwards. The network maps two images ``(b, 2, X, Y)`` to the one
    between them, ``(b, 1, X, Y)``.

    Args:
        degradation: from HR to LR, along the last axis only; gives the positions of thin slices.
        batch: pairs of slices at once; None for 16 on a GPU, and 1 elsewhere.
    """

    def __init__(self, degradation: Degradation, batch: int | None = None) -> None:
        super().__init__()
        self.factor, self.offset = degradation.factors[2], degradation.offset[2]
        self.halvings = math.ceil(math.log2(self.factor)) + 1
        self.batch = batch

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """``(B, 1, X, Y, Z)`` to ``(B, 1, X, Y, factor Z)``, float32."""
        volume = remove_metadata(inputs)
        count = round(volume.shape[-1] * self.factor)
        volume = torch.cat([volume[..., :1], volume, volume[..., -1:]], dim=-1)
        for _ in track(range(self.halvings), growth=2):
            volume = self._insert_slices(volume, network, args, kwargs)
        places = ((np.arange(count) - self.offset) / self.factor + 1) * 2**self.halvings
        if np.array_equal(places, places.round()):
            return volume[..., torch.from_numpy(places.astype(int))]
        return apply_along_axes(volume, [torch.from_numpy(make_spline_matrix(volume.shape[-1], places))])

    def _insert_slices(self, volume: torch.Tensor, network: Callable[..., Any], args: Any, kwargs: Any) -> torch.Tensor:
        sides = torch.cat([volume[..., :-1], volume[..., 1:]], dim=1)
        pairs = slices_to_batch(sides)
        batch = self.batch or (_ON_A_GPU if pairs.is_cuda else 1)
        between = torch.cat([*run_in_pieces(network, pairs.split(batch), *args, **kwargs)])
        woven = torch.stack([volume[..., :-1].float(), batch_to_slices(between, volume.shape[0])], dim=-1).flatten(-2)
        return torch.cat([woven, volume[..., -1:].float()], dim=-1)


class ZeroShotInferer(ConsistentInferer):
    """Runs a 2-D network over an interpolated volume, across each axis whose images become finer.

    Each image is mirrored, and also turned if the volume becomes finer in plane. The mean over the directions is
    corrected to agree with the scan.

    Args:
        degradation: from HR to the scan, of factors [n, n, n], [n, n, 1] or [1, 1, n].
        ensemble: whether to use mirrored and turned images, see :class:`EnsembleInferer`.
        iterations: of :class:`ConsistentInferer`; 0 leaves the network's result unchanged.

    Source:
        Shocher et al., "Zero-Shot" super-resolution using deep internal learning, IEEE CVPR 2018, section 3.1.
    """

    def __init__(self, degradation: Degradation, ensemble: bool = True, iterations: int = 1) -> None:
        images = OrthogonalInferer(choose_zero_shot_images(list(degradation.factors))[0], keeps_size=True)
        forms = EnsembleInferer(images, rotations=degradation.factors[0] > 1, enabled=ensemble)
        super().__init__(InterpolatedInferer(forms, degradation), degradation, iterations)
