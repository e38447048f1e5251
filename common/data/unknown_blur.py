"""LR scans with unknown blur in plane: kernels to estimate, and to train with."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform

from ..degradations.base import Degradation
from ..degradations.compose import ComposeDegradations
from ..degradations.profiles import InPlaneKernel
from ..degradations.rician_noise import RicianNoise
from ..physics.blur_kernels import load_kernels
from ..physics.scale import get_in_plane_number, make_patch_size
from ..runtime.values import check_whole_numbers
from ..transforms.denoise import DenoiseSlicesd, estimate_noise
from ..transforms.scan.check import ResizePlanesd
from ..transforms.scan.volume import MakeLRd
from .lists.groups import Group
from .lists.spacing import measure_in_plane_spacing
from .loaders.kernel_crops import KernelCropLoader, check_target, select_kernel_cases
from .loaders.slabs import check_volume_sizes
from .loaders.slices import KernelSliceLoader
from .loaders.volumes import VolumeCache


class UnknownBlur:
    """Kernels and noise of LR scans; each is read, or measured, when it is first asked for.

    :meth:`make_part_loaders` gives the crops for the estimation of kernels.

    Args:
        source: HR volumes, "hr".
        target: LR scans whose kernels are estimated.
        validation: volumes to validate with; before an estimation they are read, so that bad ones are refused.
        degradation: from HR to LR, in plane only.
        kernel_dir: folder of the kernel files.
        lr_patch: voxels of an LR patch along both axes in plane, or ``[n, n, 1]``.
        slice_axis: of all scans.
        seed: of random draws.
        device: of the crops.
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
    """

    def __init__(
        self,
        source: VolumeCache,
        target: VolumeCache,
        validation: Group,
        degradation: Degradation,
        kernel_dir: str,
        lr_patch: int | Sequence[int],
        slice_axis: str,
        seed: int,
        device: torch.device | str,
        kernels: torch.Tensor | None = None,
        noise_levels: Sequence[float] | None = None,
        validation_degradation: Degradation | None = None,
        kernel_per: str = "slice",
        slice_step: int = 1,
        batch_volumes: int = 1,
        kernel_size: int = 13,
        crop: int = 64,
        crops: int = 1,
        denoise: bool = True,
    ) -> None:
        check_whole_numbers(batch_volumes=batch_volumes)
        self.source, self.target, self.validation, self.degradation = source, target, validation, degradation
        self.factor, self.centre = get_in_plane_number(scale=list(degradation.factors)), degradation.offset[0]
        self.hr_patch = self.factor * get_in_plane_number(make_patch_size(lr_patch), "lr_patch")
        self.kernel_dir, self.slice_axis, self.seed, self.device = kernel_dir, slice_axis, seed, device
        self._kernels, self._noise_levels, self._validation_degradation = kernels, noise_levels, validation_degradation
        self.kernel_per, self.slice_step, self.batch_volumes = kernel_per, slice_step, batch_volumes
        self.crop, self.lr_crop, self.crops = crop, (crop - kernel_size) // self.factor + 1, crops
        self.denoise = denoise

    @cached_property
    def hr_spacing(self) -> list[float]:
        """Spacing of HR pixels along both axes in mm."""
        return measure_in_plane_spacing(self.source.data, self.slice_axis)

    def make_part_loaders(self) -> Iterator[KernelCropLoader]:
        """Yield crops for the kernels of ``batch_volumes`` LR scans at a time."""
        _ = VolumeCache(self.validation, self.source.transform, []).volumes
        check_target(self.load_lr_scans(self.target.data[self.batch_volumes :], denoise=False), self.lr_crop)
        source = VolumeCache(self.source.data, self.source.transform, ["hr"])
        check_volume_sizes(source, "hr", (self.hr_patch, self.hr_patch, 1), "source")
        for first in range(0, len(self.target), self.batch_volumes):
            target = self.load_lr_scans(self.target.data[first : first + self.batch_volumes], self.denoise)
            cases = select_kernel_cases(source, target, self.kernel_per, self.slice_step)
            yield KernelCropLoader(source, target, cases, self.crop, self.lr_crop, self.crops, self.seed, self.device)

    def load_lr_scans(self, entries: Sequence[Mapping], denoise: bool) -> VolumeCache:
        """LR scans for the estimation of kernels, "lr", with pixels ``factor`` times as large as HR pixels."""
        resize = ResizePlanesd("lr", [self.factor * mm for mm in self.hr_spacing])
        return VolumeCache(entries, Compose([self.target.transform, DenoiseSlicesd("lr", denoise), resize]), ["lr"])

    @cached_property
    def kernels(self) -> torch.Tensor:
        """Kernels ``(N, K, K)``."""
        if self._kernels is not None:
            return self._kernels.reshape(-1, *self._kernels.shape[-2:])
        scans: list[Any] = [entry.get("lr", entry.get("hr")) for entry in self.target.data]
        return load_kernels(self.kernel_dir, self.factor, self.centre, self.hr_spacing, scans)

    @cached_property
    def noise_levels(self) -> Sequence[float]:
        """Standard deviations of the noise."""
        if self._noise_levels is not None:
            return self._noise_levels
        return [estimate_noise(scan["lr"][0].movedim(-1, 0).double().numpy()) for scan in self.target.volumes]

    @cached_property
    def validation_degradation(self) -> Degradation:
        """Makes LR for validation."""
        if self._validation_degradation is not None:
            return self._validation_degradation
        mean = sum(self.noise_levels) / len(self.noise_levels)
        kernel = InPlaneKernel(self.kernels.mean(dim=0), self.factor, self.centre)
        return ComposeDegradations([kernel, RicianNoise(mean, self.seed)])

    def make_loader(self, batch_size: int, angle_step: int = 45, mirrored: float = 0.5) -> KernelSliceLoader:
        """Make the loader of HR slices with a kernel and noise for each.

        Args:
            batch_size, angle_step, mirrored: as for :class:`~common.data.loaders.slices.SliceLoader`.
        """
        return KernelSliceLoader(
            self.source,
            self.kernels,
            self.noise_levels,
            self.factor,
            patch=self.hr_patch,
            margin=self.kernels.shape[-1] // 2,
            angle_step=angle_step,
            mirrored=mirrored,
            batch_size=batch_size,
            seed=self.seed,
            device=self.device,
        )


class BlurHRd(MapTransform):
    """Make LR of HR volumes to validate with, by ``validation_degradation`` of :class:`UnknownBlur`.

    Args:
        keys: of the HR volumes; LR is "lr".
        blur: known when the first volume is read.
    """

    def __init__(self, keys: KeysCollection, blur: UnknownBlur) -> None:
        super().__init__(keys)
        self.blur = blur

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return MakeLRd(self.keys, self.blur.validation_degradation)(data)
