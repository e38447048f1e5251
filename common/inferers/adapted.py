"""Weights that are trained a little further on the scan that they are to super-resolve."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ..data.loaders.image_pairs import ImagePairs, images_across
from ..data.loaders.slabs import AIR, draw_gains
from ..degradations import Degradation, FittedProfile, GaussianProfile, Interpolated, told_width
from ..networks import SliceGains
from ..runtime.precision import plain
from ..runtime.progress import duration, listening, report, step
from ..runtime.threads import one_thread
from ..runtime.workers import side_by_side
from ..values import check_whole
from .pieces import over_pieces

_HELD_OUT = 8  # of so many planes of the scan one
_TIMED = 20  # iterations
_TRIED = (16, 64)  # voxels along X and Y of what the inferer is timed on, first to warm up
_LOOKED_AT = 32  # images across the slices, for each axis in plane; about that many
_PIXELS = 4096  # of the patches that one thread takes at once: with fewer, what each call costs is above a tenth
_PIXEL_BYTES = 32768  # of the activations that gradients need
_ORDINARY = (0.5, 1.3)  # of the median of tissue
_BRIGHTER = 0.1  # of the same
_FEWEST = 0.005  # of tissue: what is rarer says nothing
_INVENTS = 2  # times as much as in planes; real volumes that are thickened here have 0.6 to 1.6 times as much
# Widths; beyond, as of thickness in cm, a network sharpens what is not blurred, or does not learn to.
_BELIEVED = (0.5, 2.0)
_SOURCES = {
    "protocol": "as its protocol says",
    "scan": "as the scan shows",
    "assumed": "assumed, as the scan is too small to show it",
}


class AdaptedInferer(Inferer):
    """Trains a copy of the network on images of the scan, and runs an inferer with whichever of the two is better.

    The planes of a stack of thick slices are fine along both of their axes. Degraded along one axis as the scanner
    thickens slices they are pairs of the scan's own contrast, noise and anatomy, and teach what is missing across the
    slices. Better is what has the smaller mean square error on the images, every eighth, that no patch is cut from, so
    the result never rests on weights that do worse there than those that were given, or than interpolation where a
    network begins from that. They are degraded as the patches are: where the scanner's profile is another than the
    degradation's, this does not see it.

    What that can do is draw bright rims along edges across the slices, which no slice has. So with a slice profile the
    copy is not used either where it makes ordinary tissue brighter than all slices around more than twice as often as
    it does so in planes that are held out, and in more than 0.5 % of it.

    Slices may be brighter than those beside them for no reason of anatomy; rows of a plane are not. With ``gains`` rows
    of the patches are made so, lest the network learns to sharpen them.

    Args:
        inferer: runs the network over a volume.
        degradation: as for :meth:`~common.data.loaders.image_pairs.ImagePairs.of`; with
            :class:`~common.degradations.Interpolated` what is left is what a network begins from that keeps sizes. A
            :class:`~common.degradations.FittedProfile` is fitted to each scan of which no thickness is told, or none
            of 0.5 to 2 distances of its slices.
        iterations: of training, 0 for none; a network that cannot be trained, as an exported one, goes without.
        batch_size: patches an iteration.
        lr_patch: size of a patch of what the degradation has left, along both axes of the image.
        learning_rate: of Adam at the beginning, from which it falls along a cosine.
        planes: axes of the scan (X, Y, Z) across which the images are taken; default those that a
            :class:`~common.degradations.ZeroShotImages` names, else Z.
        scales: sizes, of at most 1, to which the images are brought before they are degraded, where that leaves enough
            of them; each is drawn as often as it has pixels. Default those of an ``ZeroShotImages``, else 1.
        seed: of the patches that are drawn.
        gains: how much thick slices of a patch differ in brightness: the largest standard deviation of its logarithm;
            with a slice profile alone.

    Attributes:
        said: what came of it for the last volume, for those who describe a result.

    Raises:
        ValueError: when ``iterations`` is negative or no whole number, a patch or a batch is empty, a scale is above 1
            or not above 0, or ``gains`` is below 0.

    Source:
        Zhao et al., SMORE: A Self-Supervised Anti-Aliasing and Super-Resolution Algorithm for MRI Using Deep Learning,
        IEEE TMI 2021, which trains on the scan alone, from nothing; the scales are those of Shocher et al., "Zero-Shot"
        super-resolution using deep internal learning, IEEE CVPR 2018.
    """

    def __init__(
        self,
        inferer: Inferer,
        degradation: Degradation | Interpolated | FittedProfile,
        iterations: int = 0,
        batch_size: int = 8,
        lr_patch: Sequence[int] = (48, 12),
        learning_rate: float = 3e-4,
        planes: Sequence[int] | None = None,
        scales: Sequence[float] | None = None,
        seed: int = 0,
        gains: float = 0.0,
    ) -> None:
        super().__init__()
        check_whole(0, **{"iterations (adapt_iterations)": iterations})
        if batch_size < 1 or len(lr_patch) != 2 or min(lr_patch) < 1:
            raise ValueError(
                f"batch_size is {batch_size!r} and lr_patch {list(lr_patch)!r}, expected a number of patches and two "
                "sizes of a patch, each at least 1."
            )
        if not 0 <= gains < np.inf:
            raise ValueError(f"gains is {gains!r}, expected a number of at least 0.")
        planes = getattr(degradation, "planes", (2,)) if planes is None else planes
        scales = getattr(degradation, "scales", (1.0,)) if scales is None else scales
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"scales is {scales!r}, expected sizes above 0 and of at most 1, such as [1.0, 0.5].")
        self.inferer, self.degradation, self.iterations = inferer, degradation, iterations
        self.batch_size, self.lr_patch, self.learning_rate = batch_size, tuple(lr_patch), learning_rate
        self.planes, self.scales, self.seed, self.gains = tuple(planes), tuple(scales), seed, gains
        self.said: dict[str, Any] = {}

    @property
    def learns(self) -> bool:
        """Whether it trains at all."""
        return self.iterations > 0

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """As the inferer, of ``(B, 1, X, Y, Z)``, slices along the last axis.

        The network is a module that maps images ``(b, 1, H, W)`` to ``(b, 1, H, f W)``, f the degradation's last
        factor; it stays as it is. One under autocast is trained under it, and its weights stay in float32.
        """
        if not self.iterations:
            return self.inferer(inputs, network, *args, **kwargs)
        seconds = self._seconds(inputs, network, *args, **kwargs)
        with step(then=seconds):
            better = self._better(inputs, network, seconds)
        with step():
            return self.inferer(inputs, better, *args, **kwargs)

    def _seconds(self, volume: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """How long the inferer will take, by the middle of the volume."""
        seconds = 0.0
        for size in _TRIED:
            middle = volume
            for axis in (2, 3):
                most = min(size, volume.shape[axis])
                middle = middle.narrow(axis, (volume.shape[axis] - most) // 2, most)
            began = time.perf_counter()
            with listening(lambda left: None):
                self.inferer(middle, network, *args, **kwargs)
            seconds = (time.perf_counter() - began) * volume.numel() / middle.numel()
        return seconds

    def _better(self, volume: torch.Tensor, network: Any, seconds: float) -> nn.Module:
        """The network or its trained copy, by their errors on images that are held out.

        It takes so many seconds to run the inferer.
        """
        self.said, degradation, bare = {}, self.degradation, plain(network)
        exported = isinstance(bare, torch.jit.ScriptModule)
        if exported or not isinstance(bare, nn.Module) or not any(True for _ in bare.parameters()):
            tqdm.write(f"no training on the scan: exported weights ({type(bare).__name__}) cannot be trained")
            return network
        began = time.perf_counter()
        if isinstance(degradation, FittedProfile):
            told = told_width(volume)
            if told is not None:
                self.said["ProfileTold"] = round(told, 3)
                if not _BELIEVED[0] <= told <= _BELIEVED[1]:
                    tqdm.write(
                        f"warning: by SliceThickness slices are {told:.3g} times as thick as they are apart, expected "
                        f"{_BELIEVED[0]} to {_BELIEVED[1]}: not believed, but what the scan shows; --adapt_profile "
                        "insists"
                    )
                    told = None
            with one_thread():  # lest the last bits of its sums hang on the number of threads
                width = told or degradation.width(volume)
            source = "protocol" if told else "scan" if width else "assumed"
            degradation = degradation.of(width)
            tqdm.write(f"slices are {degradation.fwhm:.2f} times as thick as they are apart, {_SOURCES[source]}")
            self.said["ProfileFrom"] = source
        if isinstance(degradation, GaussianProfile):
            self.said["Profile"] = round(degradation.fwhm, 2)
        volume = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
        trained_on, held = [], []
        for images in (images for axis in self.planes for images in images_across(volume, axis)):
            if len(images) < 2:
                continue  # one to train on and one to hold out
            index = torch.arange(len(images), device=images.device)
            apart = index % _HELD_OUT == len(images) // 2 % _HELD_OUT
            with one_thread():
                held.append(ImagePairs.of(images[apart], degradation))
                trained_on += ImagePairs.at_scales(images[~apart], degradation, self.scales)
        if not trained_on:
            self.said = {}
            tqdm.write(
                "no training on the scan: it has too few planes to train on and to hold out; the weights as they were "
                "make the result"
            )
            return network
        uneven = None
        if self.gains and isinstance(degradation, GaussianProfile):
            uneven = SliceGains(degradation, dark=0.0).to(volume.device)
        # Then images that are held out are looked at, or for rims those of the scan.
        with step(then=seconds / _HELD_OUT * (1 if isinstance(degradation, Interpolated) else 2)):
            adapted = self._trained(trained_on, copy.deepcopy(network), uneven)
        # A network that stands behind interpolation and has not learned yet may be worse than that.
        starts: list[nn.Module] = [network, nn.Identity()] if isinstance(degradation, Interpolated) else [network]
        stacks = [each.lr for each in held]
        errors = [_error(held, _made(each, stacks)) for each in starts]
        in_plane = _made(adapted, stacks)
        before, after = min(errors), _error(held, in_plane)
        first, last = (round(float(-10 * np.log10(max(error, 1e-10))), 2) for error in (before, after))
        self.said |= {"Iterations": self.iterations, "Psnr": first, "PsnrAdapted": last}
        why = "" if after < before else "it did worse on planes of the scan that were held out"
        if not why and isinstance(degradation, GaussianProfile):
            tissue = volume[volume > AIR].median()
            across = _images_of_stack(volume)
            made = _overshoot(across, _made(adapted, across), tissue)
            own = _overshoot(stacks, in_plane, tissue)
            self.said |= {"Overshoot": round(made, 5), "OvershootInPlane": round(own, 5)}
            if made > max(_INVENTS * own, _FEWEST):
                why = "it drew rims that the scan does not show"
        self.said["Used"] = not why
        kept = "the weights as they were make" if before == errors[0] else "interpolation alone makes"
        took = f"training on the scan ({duration(time.perf_counter() - began)})"
        tqdm.write(
            f"{took} was not used: {why}; {kept} the result"
            if why
            else f"{took} is used: planes of it that were held out gain {last - first:.2f} dB"
        )
        return starts[errors.index(before)] if why else adapted

    def _trained(self, examples: Sequence[ImagePairs], network: nn.Module, uneven: SliceGains | None) -> nn.Module:
        """The network, trained on patches, whose slices differ in brightness where there is ``uneven``.

        On a CPU a batch is divided into parts, as many for any number of threads, whose gradients are added in order.
        """
        rng = np.random.default_rng(self.seed)
        pixels = np.array([each.lr.numel() for each in examples])
        device, size = examples[0].lr.device, int(np.prod(self.lr_patch))
        parts = max(2, self.batch_size * size // _PIXELS) if device.type == "cpu" else 1
        count = -(-self.batch_size // parts)
        parameters = list(network.requires_grad_().parameters())
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = total
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.iterations)

        def gradients(drawn: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor | None, ...]:
            hr, lr, *gains = drawn
            if uneven is not None:
                hr, lr = (uneven(images, *gains) for images in (hr, lr))
            loss = (network(lr) - hr).abs().mean(dim=(1, 2, 3)).sum()
            return torch.autograd.grad(loss, parameters, allow_unused=True)

        network.train()
        began = time.perf_counter()
        with torch.enable_grad():
            for i in range(self.iterations):
                # A batch of one stack, as those of small scans have patches of sizes of their own.
                drawn = examples[rng.choice(len(examples), p=pixels / pixels.sum())]
                optimizer.zero_grad(set_to_none=False)
                batch = self._batch(drawn, count, uneven is not None, rng)
                for found in side_by_side(gradients, batch, device, count * size * _PIXEL_BYTES):
                    for total, part in zip(sums, found, strict=True):
                        if part is not None:  # of a parameter that the network does not use
                            total.add_(part, alpha=1 / self.batch_size)
                with one_thread():
                    optimizer.step()
                schedule.step()
                report((i + 1) / self.iterations)
                if i + 1 == _TIMED < self.iterations:
                    seconds = (time.perf_counter() - began) / _TIMED * (self.iterations - _TIMED)
                    without = (
                        "" if isinstance(self.degradation, Interpolated) else "; --adapt_iterations 0 goes without"
                    )
                    tqdm.write(f"training on the scan: about {duration(seconds)} more{without}")
        optimizer.zero_grad()
        return network.eval().requires_grad_(False)

    def _batch(
        self, drawn: ImagePairs, count: int, uneven: bool, rng: np.random.Generator
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Patches in parts of ``count``: HR and LR, and the gains of slices where they are ``uneven``."""
        for first in range(0, self.batch_size, count):
            pairs = [drawn.patch(self.lr_patch, rng) for _ in range(min(count, self.batch_size - first))]
            hr, lr = (torch.stack(images) for images in zip(*pairs, strict=True))
            gains = [draw_gains(self.gains, lr.shape[3], rng) for _ in pairs] if uneven else []
            yield hr, lr, *([torch.stack(gains).to(lr.device)] if gains else [])


def _made(network: nn.Module, stacks: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What a network makes of the images of each stack ``(n, 1, H, W)``."""
    with listening(lambda share: None):  # it is no share of the training
        return [torch.cat([*over_pieces(network, stack.split(1))]) for stack in stacks]


def _error(examples: Sequence[ImagePairs], made: Sequence[torch.Tensor]) -> float:
    """Mean square error of what was made of the LR images."""
    with one_thread():
        total = sum((sr - each.hr).square().sum().item() for sr, each in zip(made, examples, strict=True))
    return total / sum(each.hr.numel() for each in examples)


def _images_of_stack(volume: torch.Tensor) -> list[torch.Tensor]:
    """Images of a stack ``(B, 1, X, Y, Z)`` across X, and across Y, each ``(n, 1, H, Z)``, evenly taken."""
    stacks = [volume.movedim(axis, 1).flatten(0, 1) for axis in (2, 3)]
    return [images[:: max(len(images) // _LOOKED_AT, 1)] for images in stacks]


def _overshoot(stacks: Sequence[torch.Tensor], made: Sequence[torch.Tensor], tissue: torch.Tensor) -> float:
    """Share of ordinary tissue that comes out brighter than the 5 x 3 pixels of an LR image ``(n, 1, H, W)`` around it.

    Where these are dark or bright, at the edge of the head and at its fat, is not looked at.
    """
    brighter = ordinary = torch.zeros((), dtype=torch.long, device=tissue.device)
    for lr, sr in zip(stacks, made, strict=True):
        most = F.max_pool2d(lr, (5, 3), 1, (2, 1)).repeat_interleave(sr.shape[3] // lr.shape[3], 3)
        counted = (most > _ORDINARY[0] * tissue) & (most < _ORDINARY[1] * tissue)
        brighter = brighter + (counted & (sr > most + _BRIGHTER * tissue)).sum()
        ordinary = ordinary + counted.sum()
    return (brighter / ordinary.clamp_min(1)).item()
