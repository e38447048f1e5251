"""HR scans, and LR scans of other people or days with unknown blur in plane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from monai.data import Dataset
from monai.transforms import Compose

from ...degradations import ComposeDegradations, Degradation, InPlaneKernel, RicianNoise
from ...physics.blur_kernels import load_kernels
from ...physics.scale import in_plane, patch_of
from ...transforms import DenoiseSlicesd, LoadScand, MakeLRd, RegisterLRd, ResizePlanesd, estimate_noise
from ...values import check_whole, is_true
from ..lists.datalist import as_lr
from ..lists.spacing import in_plane_spacing
from ..loaders.kernel_crops import KernelCropLoader, check_target, kernel_cases
from ..loaders.slabs import check_fit
from ..loaders.slices import KernelSliceLoader
from ..loaders.volumes import VolumeCache
from .base import Sets, heads


class UnknownBlur(Sets):
    """HR scans of the source and LR scans of the target, to estimate kernels in plane and to train with them.

    :meth:`parts` gives the crops for the estimation of kernels. ``batches`` are HR slices with these kernels and the
    noise of the LR scans. Missing LR of target and test is made from HR; LR of validation is always made from HR.

    Args:
        kernel_dir: folder of the kernel files.
        lr_patch: voxels of an LR patch along both axes in plane, or ``[n, n, 1]``.
        group: of the LR scans whose kernels are estimated.
        kernels: ``(N, K, K)`` or ``(K, K)``, known kernels to use instead of those in ``kernel_dir``.
        noise_levels: standard deviations of the noise in batches; default those of the LR scans.
        validation_degradation: makes LR for validation; default the mean of the kernels, with the mean noise.
        kernel_per: "slice" for one kernel per slice of the LR scans, or "volume" for one per volume.
        slice_step: distance between the slices of the LR scans that are used.
        batch_volumes: LR scans in a part.
        kernel_size: edge of the estimated kernels, in HR pixels.
        crop: edge of an HR crop for the estimation, in pixels.
        crops: crops of each kernel in a batch.
        denoise: whether LR scans are denoised before their kernels are estimated.
        register: whether LR scans of the test group are registered to their HR scans.
        denoise_input: whether LR scans of the test group are denoised.
        options: of :class:`Sets`.

    Raises:
        ValueError: for a degradation or an ``lr_patch`` that is not in plane only, or a ``batch_volumes`` that is not
            whole.
    """

    SIMULATED: ClassVar[Mapping[str, Any]] = heads(12, [4, 4, 1, 3], spacing=1.5)
    batch_keys = ("hr", "hr_context", "kernel", "noise")

    def __init__(
        self,
        *,
        kernel_dir: str,
        lr_patch: int | Sequence[int],
        group: str = "target",
        kernels: torch.Tensor | None = None,
        noise_levels: Sequence[float] | None = None,
        validation_degradation: Degradation | None = None,
        kernel_per: str = "slice",
        slice_step: int = 1,
        batch_volumes: int = 1,
        kernel_size: int = 13,
        crop: int = 64,
        crops: int = 1,
        denoise: bool | str = True,
        register: bool | str = False,
        denoise_input: bool | str = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_whole(batch_volumes=batch_volumes)
        self.group = group
        self.factor, self.centre = in_plane(scale=self.scale), self.offset[0]
        self.hr_patch = self.factor * in_plane(patch_of(lr_patch), "lr_patch")
        self.kernel_dir = kernel_dir
        known = {"kernels": kernels, "noise_levels": noise_levels, "validation": validation_degradation}
        self._known: dict[str, Any] = known
        self.kernel_per, self.slice_step, self.batch_volumes = kernel_per, slice_step, batch_volumes
        self.crop, self.lr_crop = crop, (crop - kernel_size) // self.factor + 1
        self.crops = crops
        self.denoise, self.denoise_input = is_true(denoise, "denoise"), is_true(denoise_input, "denoise_input")
        self.register = is_true(register, "register")

    @cached_property
    def load(self) -> LoadScand:  # type: ignore[override]
        """Reads an entry without changes."""
        return LoadScand(["hr", "lr"], slice_axis=self.slice_axis, allow_missing_keys=True)

    @cached_property
    def load_lr(self) -> Compose:
        """Reads an entry of the target."""
        return Compose(self.scans())

    @cached_property
    def source(self) -> list[dict]:
        """Entries with HR."""
        return self.listed("source", "hr")

    @cached_property
    def target(self) -> list[dict]:
        """Entries with LR, or with HR to make LR from."""
        return as_lr(self.listed(self.group, ("hr", "lr")))

    @cached_property
    def hr_spacing(self) -> list[float]:
        """Spacing of HR pixels along both axes in mm."""
        return in_plane_spacing(self.source, self.slice_axis)

    def parts(self) -> Iterator[KernelCropLoader]:
        """Yield crops for the kernels of ``batch_volumes`` LR scans at a time.

        Raises:
            ValueError: before the first part, when a volume of any part, of validation or for ``batches`` cannot be
                used.
        """
        self.cached(self.validating("hr"), self.load, [], False)
        check_target(self.lr_scans(self.target[self.batch_volumes :], denoise=False), self.lr_crop)
        source = self.cached(self.source, self.load, ["hr"], False)
        check_fit(source, "hr", (self.hr_patch, self.hr_patch, 1), "source")
        for first in range(0, len(self.target), self.batch_volumes):
            target = self.lr_scans(self.target[first : first + self.batch_volumes], self.denoise)
            cases = kernel_cases(source, target, self.kernel_per, self.slice_step)
            yield KernelCropLoader(source, target, cases, self.crop, self.lr_crop, self.crops, self.seed, self.device)

    def lr_scans(self, entries: Sequence[Mapping], denoise: bool) -> VolumeCache:
        """LR scans for the estimation of kernels, "lr", with pixels ``factor`` times as large as HR pixels."""
        resize = ResizePlanesd("lr", [self.factor * mm for mm in self.hr_spacing])
        return self.cached(entries, Compose([self.load_lr, DenoiseSlicesd("lr", denoise), resize]), ["lr"], False)

    @cached_property
    def kernels(self) -> torch.Tensor:
        """Kernels ``(N, K, K)``."""
        known = self._known["kernels"]
        if known is not None:
            return known.reshape(-1, *known.shape[-2:])
        scans: list[Any] = [entry.get("lr", entry.get("hr")) for entry in self.target]
        return load_kernels(self.kernel_dir, self.factor, self.centre, self.hr_spacing, scans)

    @cached_property
    def noise_levels(self) -> Sequence[float]:
        """Standard deviations of the noise."""
        if self._known["noise_levels"] is not None:
            return self._known["noise_levels"]
        scans: Any = self.cached(self.target, self.load_lr, ["lr"], False)
        return [estimate_noise(scan["lr"][0].movedim(-1, 0).double().numpy()) for scan in scans]

    @cached_property
    def train(self) -> VolumeCache:
        """HR volumes to learn from, "hr"."""
        return self.cached(self.source, self.load, ["hr"], True)

    @cached_property
    def batches(self) -> KernelSliceLoader:
        """Batches of HR slices, with a kernel and noise for each."""
        return KernelSliceLoader(
            self.train,
            self.kernels,
            self.noise_levels,
            self.factor,
            patch=self.hr_patch,
            margin=self.kernels.shape[-1] // 2,
            angles=range(0, 360, 45),
            **self._patches,
        )

    @cached_property
    def validation(self) -> VolumeCache:
        """Volumes to validate with, "hr" and "lr"."""
        degradation = self._known["validation"]
        if degradation is None:
            mean = sum(self.noise_levels) / len(self.noise_levels)
            kernel = InPlaneKernel(self.kernels.mean(dim=0), self.factor, self.centre)
            degradation = ComposeDegradations([kernel, RicianNoise(mean, self.seed)])
        load = Compose([self.load, MakeLRd("hr", degradation)])
        return self.cached(self.validating("hr"), load, ["hr", "lr"], True)

    @property
    def test(self) -> Dataset:
        """Volumes to measure with, "hr" and "lr"."""
        moved = RegisterLRd("lr", reference="hr", degradation=self.degradation, quality_dir=self.output_dir)
        load = [
            self.load,
            *([moved] if self.register else []),
            MakeLRd("hr", self.scan_degradation, like=self.degradation),
            DenoiseSlicesd("lr", self.denoise_input),
        ]
        return Dataset(self.listed("test", ("hr", "lr"), "hr"), Compose(load))
