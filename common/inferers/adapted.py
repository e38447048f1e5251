"""Fine-tuning of weights on the scan that is to be super-resolved."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import nn
from tqdm import tqdm

from ..data.loaders.image_pairs import ImagePairs, slice_images
from ..data.loaders.slabs import sample_gains
from ..degradations.base import Degradation, remove_metadata
from ..degradations.fitted_profile import BELIEVED_WIDTHS, FittedProfile
from ..degradations.interpolation import DegradeAndInterpolate
from ..degradations.profiles import GaussianProfile
from ..io.slice_thickness import read_profile_width
from ..networks.interpolation import SliceGains
from ..networks.steps import SelfAntiAliasing
from ..runtime.memory import move_to_device
from ..runtime.precision import match_precision, unwrap_autocast
from ..runtime.progress import begin_part, format_duration, format_estimate, measure_time, track
from ..runtime.threads import use_one_thread
from ..runtime.values import check_whole_numbers
from ..runtime.workers import run_in_parallel
from .duration import estimate_seconds
from .held_out import HeldOutCheck, select_evenly

_HELD_OUT = 8  # one of this number of planes is held out
_CHECKED = 1.3  # times what the iterations of a training take, with its checks
_EARLY = 100  # iterations before the check that stops a training in vain
_PIXELS = 4096  # of the patches in one call of a thread: with fewer, the overhead of calls is above 10 %
_PIXEL_BYTES = 32768  # of the activations that gradients need
_SOURCES = {
    "protocol": "as its protocol says",
    "scan": "measured in the scan, {}; slices without gaps measure 0.7 to 0.9 if they have sharp edges",
    "assumed": "assumed, because the scan does not show it for sure: {}",
}


class AdaptedInferer(Inferer):
    """Fine-tunes a copy of the network on images of the scan, and runs an inferer with the better of the two.

    The planes of a stack of thick slices are fine along both axes. They are degraded along one axis, as the scanner
    thickens slices. This gives training pairs with the scan's own contrast, noise and anatomy. Every eighth image is
    held out. The copy is used only if its mean square error on these is smaller than that of the given weights, and of
    interpolation for networks that start from it. This does not see a difference from the scanner's profile.

    Such a difference can cause bright rims along edges across the slices. So with a slice profile the copy is not used
    if more than 0.5 % of ordinary tissue becomes brighter than all slices around it, more than twice as much as in
    held-out planes, and more than by the given weights, which would replace it. Neighbouring slices may differ in
    brightness for technical reasons, unlike rows of a plane. With ``gains`` rows of the patches are made to differ too,
    so that the network does not sharpen such differences.

    With a slice profile the copy is checked after 100 iterations too. If it would not be used then, the training stops.
    Of 22 copies, for real exams and public heads, 15 were used after 400 iterations; all of them would have been used
    after 100. The others drew rims; 6 of these 7 did so after 100.

    The two parts of :class:`~common.networks.SelfAntiAliasing` are trained side by side: the first on degraded images
    against blurred ones, the second on blurred images against the scan's own.

    Args:
        inferer: runs the network over a volume.
        degradation: as for ``ImagePairs.degrade_images``. With :class:`~common.degradations.DegradeAndInterpolate`, the
            network keeps sizes and its input is interpolated. A :class:`~common.degradations.FittedProfile` is fitted
            to each scan, unless the protocol gives a slice thickness of 0.5 to 2 distances of the slices.
        iterations: of training, 0 for none. An exported network cannot be trained and is used as it is.
        batch_size: patches per iteration.
        lr_patch: size of a patch after the degradation, along both axes of the image.
        learning_rate: of Adam at the beginning; it decays along a cosine.
        planes: axes of the scan (X, Y, Z) across which the images are taken; by default those of
            :class:`~common.degradations.DegradeImages`, else Z.
        scales: factors, at most 1, by which the images are resized before they are degraded, drawn in proportion to
            their pixels. By default those of ``DegradeImages``, else 1.
        seed: of the drawn patches.
        gains: largest standard deviation of the logarithm of brightness between thick slices of a patch; with a slice
            profile only.
        check_rims: whether a copy that draws rims is not used; with a slice profile only.

    Attributes:
        report: on the last volume, for the description of the result.
        chosen: the network that made the last volume.
        measured: seconds of the training, as :meth:`measure_training`, and of the inferer, where they were measured.

    Source:
        Zhao et al. 2021 (SMORE), who train on the scan alone, from scratch. Scales: Shocher et al. 2018.
    """

    def __init__(
        self,
        inferer: Inferer,
        degradation: Degradation | DegradeAndInterpolate | FittedProfile,
        iterations: int = 0,
        batch_size: int = 8,
        lr_patch: Sequence[int] = (48, 12),
        learning_rate: float = 3e-4,
        planes: Sequence[int] | None = None,
        scales: Sequence[float] | None = None,
        seed: int = 0,
        gains: float = 0.0,
        check_rims: bool = True,
    ) -> None:
        super().__init__()
        check_whole_numbers(0, **{"iterations (adapt_iterations)": iterations})
        if batch_size < 1 or len(lr_patch) != 2 or min(lr_patch) < 1:
            raise ValueError(
                f"batch_size is {batch_size!r} and lr_patch {list(lr_patch)!r}, expected a number of patches and the "
                "two sizes of a patch, each at least 1."
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
        self.check_rims = check_rims
        self.report: dict[str, Any] = {}
        self.chosen: Any = None
        self.measured: tuple[tuple[float, float], float] | None = None

    @property
    def is_self_trained(self) -> bool:
        """Whether there is any training."""
        return self.iterations > 0

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Fine-tune, then run the inferer on ``(B, 1, X, Y, Z)``, slices along the last axis.

        The network is a module that maps images ``(b, 1, H, W)`` to ``(b, 1, H, f W)``, f the degradation's last
        factor, which need not be whole; it is not changed. Under autocast it is trained under autocast, with weights in
        float32.
        """
        self.chosen = network
        if not self.iterations:
            return self.inferer(inputs, network, *args, **kwargs)
        training, rest = self.measured or (self.measure_training(inputs, network), None)
        if rest is None:
            (rest, _) = estimate_seconds(self.inferer, inputs, network, *args, **kwargs) or (training[1], None)
        if training[1]:
            tqdm.write(f"training on the scan will take about {format_estimate(*training)}")
        with begin_part(0, (training[1], rest)):
            self.chosen = self._choose_network(inputs, network)
        with begin_part(1, (training[1], rest)):
            return self.inferer(inputs, self.chosen, *args, **kwargs)

    def estimate_seconds(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> tuple[float, float] | None:
        """As :func:`common.inferers.duration.estimate_seconds`; a training may stop early."""
        rest = estimate_seconds(self.inferer, inputs, network, *args, **kwargs)
        training = self.measure_training(inputs, network)
        return None if rest is None else (training[0] + rest[0], training[1] + rest[1])

    def measure_training(self, volume: torch.Tensor, network: Any) -> tuple[float, float]:
        """Seconds of the training on this machine if it stops early, and at most.

        They are measured by an iteration on the two middle planes of a stack ``(1, 1, X, Y, Z)``.
        """
        bare = unwrap_autocast(network)
        if not self.iterations or not _is_trainable(bare):
            return 0.0, 0.0
        short, check = copy.copy(self), SimpleNamespace(find_reason=lambda trained: "")
        short.iterations = 1
        degradation: Any = self.degradation
        if isinstance(profile := getattr(degradation, "degradation", degradation), FittedProfile):
            assumed = profile.make_profile(None)
            degradation = assumed if profile is degradation else DegradeAndInterpolate(assumed)
        middle, blurs = volume.shape[4] // 2, isinstance(bare, SelfAntiAliasing) and bare.is_enabled
        images = slice_images(remove_metadata(volume)[..., max(middle - 1, 0) : middle + 1], 2)
        pairs = [pair for each in images for pair in ImagePairs.degrade_at_scales(each, degradation, (1.0,), blurs)]
        seconds = _CHECKED * measure_time(lambda: short._train(pairs, copy.deepcopy(network), None, check, 1))
        may_stop = isinstance(degradation, GaussianProfile) and self.check_rims
        return seconds * (min(_EARLY, self.iterations) if may_stop else self.iterations), seconds * self.iterations

    def _choose_network(self, volume: torch.Tensor, network: Any) -> nn.Module:
        """The network or its trained copy, by images of the scan."""
        self.report, bare = {}, unwrap_autocast(network)
        if not _is_trainable(bare):
            tqdm.write(f"no training on the scan: exported weights ({type(bare).__name__}) cannot be trained")
            return network
        began = time.perf_counter()
        degradation = self._choose_degradation(volume)
        anti_aliasing = isinstance(bare, SelfAntiAliasing) and bare.is_enabled
        volume = remove_metadata(volume)
        trained_on, held = [], []
        for images in (images for axis in self.planes for images in slice_images(volume, axis)):
            if len(images) < 2:
                continue  # one to train on and one to hold out
            index = torch.arange(len(images), device=images.device)
            apart = index % _HELD_OUT == len(images) // 2 % _HELD_OUT
            with use_one_thread():
                held.append(ImagePairs.degrade_images(select_evenly(images[apart]), degradation))
                trained_on += ImagePairs.degrade_at_scales(images[~apart], degradation, self.scales, anti_aliasing)
        if not trained_on:
            self.report = {}
            tqdm.write(
                "no training on the scan: it has too few planes to train on and to hold out; the original weights make "
                "the result"
            )
            return network
        # A network after interpolation that has not learned much may be worse than interpolation alone.
        after_interpolation = isinstance(degradation, DegradeAndInterpolate)
        starts: list[nn.Module] = [network, nn.Identity()] if after_interpolation else [network]
        uneven, across, early = None, [], self.iterations
        if isinstance(degradation, GaussianProfile) and self.check_rims:
            across, early = [select_evenly(volume.movedim(axis, 1).flatten(0, 1)) for axis in (2, 3)], _EARLY
        if isinstance(degradation, GaussianProfile) and self.gains:
            uneven = SliceGains(degradation, dark=0.0).to(volume.device)
        check = HeldOutCheck(held, across, starts)
        adapted = copy.deepcopy(network)
        done, why = self._train(trained_on, adapted, uneven, check, early)
        self.report |= {"Iterations": done, **check.report, "Used": not why}
        took = f"training on the scan ({format_duration(time.perf_counter() - began)})"
        if not why:
            gain = check.report["PsnrAdapted"] - check.report["Psnr"]
            tqdm.write(f"{took} is used: held-out planes gain {gain:.2f} dB")
            return adapted
        self.report["NotUsed"] = why
        stopped = f", stopped after {done} of {self.iterations} iterations," if done < self.iterations else ""
        fallback = "interpolation alone makes" if check.best else "the original weights make"
        tqdm.write(f"{took}{stopped} was not used: {why}; {fallback} the result")
        return starts[check.best]

    def _choose_degradation(self, volume: torch.Tensor) -> Degradation | DegradeAndInterpolate:
        """The degradation, with a profile that is fitted to the volume; its width is added to the report."""
        degradation: Any = self.degradation
        profile = degradation.degradation if isinstance(degradation, DegradeAndInterpolate) else degradation
        if isinstance(profile, FittedProfile):
            profile = self._fit_profile(profile, volume)
            degradation = DegradeAndInterpolate(profile) if isinstance(degradation, DegradeAndInterpolate) else profile
        if isinstance(profile, GaussianProfile):
            self.report["Profile"] = round(profile.fwhm, 2)
        return degradation

    def _fit_profile(self, fitted: FittedProfile, volume: torch.Tensor) -> GaussianProfile:
        """The profile of the volume's slices: by its protocol, else as the volume shows; added to the report."""
        stated_width = read_profile_width(volume)
        if stated_width is not None:
            self.report["ProfileTold"] = round(stated_width, 3)
            if not BELIEVED_WIDTHS[0] <= stated_width <= BELIEVED_WIDTHS[1]:
                tqdm.write(
                    f"notice: by SliceThickness slices are {stated_width:.3g} times as thick as they are apart, "
                    f"expected {BELIEVED_WIDTHS[0]} to {BELIEVED_WIDTHS[1]}: ignored, the scan is measured instead; "
                    "to use it, set --adapt_profile"
                )
                stated_width = None
        width, found = stated_width, ""
        if width is None:
            with use_one_thread():  # so that rounding does not depend on the number of threads
                width, found = fitted.estimate_width(volume)
        source = "protocol" if stated_width else "scan" if width else "assumed"
        profile = fitted.make_profile(width)
        tqdm.write(f"slices are {profile.fwhm:.2f} times as thick as they are apart, {_SOURCES[source].format(found)}")
        self.report["ProfileFrom"] = source
        return profile

    def _train(
        self,
        examples: Sequence[ImagePairs],
        network: nn.Module,
        uneven: SliceGains | None,
        check: HeldOutCheck | Any,
        early: int,
    ) -> tuple[int, str]:
        """Train the network on patches; with ``uneven`` their slices differ in brightness.

        The network is checked after ``early`` iterations and at the end. Returns the iterations that were done, and why
        the network should not be used; empty if it should.

        On a CPU a batch is divided into parts whose gradients are added in order. Their number does not depend on the
        number of threads.
        """
        rng = np.random.default_rng(self.seed)
        pixels = np.array([each.lr.numel() for each in examples])
        device, size = examples[0].lr.device, int(np.prod(self.lr_patch))
        parts = max(2, self.batch_size * size // _PIXELS) if device.type == "cpu" else 1
        count = -(-self.batch_size // parts)
        parameters = list(network.requires_grad_().parameters())
        if examples[0].blurred is not None:
            anti_aliasing = match_precision(network, network.anti_aliasing)  # type: ignore[arg-type]
            super_resolution = match_precision(network, network.super_resolution)  # type: ignore[arg-type]
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = total
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.iterations)

        def compute_gradients(patches: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor | None, ...]:
            hr, lr, *others = patches
            if uneven is not None:
                hr, lr = (uneven(images, *others) for images in (hr, lr))
            if examples[0].blurred is None:
                loss = _compute_loss(network(lr), hr)
            else:
                loss = _compute_loss(anti_aliasing(lr), *others) + _compute_loss(super_resolution(*others), hr)
            return torch.autograd.grad(loss, parameters, allow_unused=True)

        network.train()
        why = ""
        with torch.enable_grad():
            for i in track(range(self.iterations)):
                # A batch is from one stack, because stacks of small scans differ in the size of patches.
                patches = examples[rng.choice(len(examples), p=pixels / pixels.sum())]
                optimizer.zero_grad(set_to_none=False)
                batch = self._iterate_patches(patches, count, uneven is not None, rng)
                for part_gradients in run_in_parallel(compute_gradients, batch, device, count * size * _PIXEL_BYTES):
                    for total, part in zip(sums, part_gradients, strict=True):
                        if part is not None:  # None for a parameter that the network does not use
                            total.add_(part, alpha=1 / self.batch_size)
                with use_one_thread():
                    optimizer.step()
                schedule.step()
                if i + 1 in (early, self.iterations):
                    with torch.no_grad():
                        why = check.find_reason(network.eval())
                    if why:
                        break
                    network.train()
        optimizer.zero_grad()
        network.eval()
        return i + 1, why

    def _iterate_patches(
        self, images: ImagePairs, count: int, with_gains: bool, rng: np.random.Generator
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield patches in parts of ``count``: HR, LR, blurred if there are any, and gains of slices if wanted."""
        for first in range(0, self.batch_size, count):
            pairs = [images.sample_patch(self.lr_patch, rng) for _ in range(min(count, self.batch_size - first))]
            hr, lr, *blurred = (torch.stack(images) for images in zip(*pairs, strict=True))
            gains = [sample_gains(self.gains, lr.shape[3], rng) for _ in pairs] if with_gains else []
            yield hr, lr, *blurred, *([move_to_device(torch.stack(gains), lr.device)] if gains else [])


def _is_trainable(network: Any) -> bool:
    """Whether a network can be trained."""
    return isinstance(network, nn.Module) and any(True for _ in network.parameters())


def _compute_loss(result: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Sum over a batch of each patch's mean absolute difference."""
    return (result - expected).abs().mean(dim=(1, 2, 3)).sum()
