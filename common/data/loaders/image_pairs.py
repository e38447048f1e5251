"""Batches of 2-D images of volumes: with their degraded versions, and with their neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...degradations.base import Degradation
from ...degradations.interpolation import DegradeAndInterpolate, interpolate
from ...degradations.profiles import GaussianProfile
from ...physics.scale import choose_zero_shot_images
from .slabs import AIR, PatchLoader, check_volume_sizes, choose_patch_start, cut_patch, find_tissue_voxels
from .volumes import VolumeCache

_SMALLEST = 16  # pixels of an image that was made smaller
_MARGIN = 2  # widths of a Gaussian profile, on each side, beyond which it is 0
_SPLINE = 8  # columns beyond which a spline does not change


@dataclass(frozen=True)
class ImagePairs:
    """Images and their degraded versions.

    Attributes:
        hr: ``(n, 1, H, f W)``.
        lr: ``(n, 1, H, W)``.
        tissue: mask of ``lr`` without air, ``(H, W, n)``.
        blurred: ``(n, 1, H, W)``, as coarse as ``lr`` but without its aliasing; None if no network needs it.
        profile: of patches, which are degraded one by one; None if they are cut from ``lr``. With a factor that is not
            whole, the LR columns of an image lie in other places between its HR columns than those of a patch.
    """

    hr: torch.Tensor
    lr: torch.Tensor
    tissue: np.ndarray
    blurred: torch.Tensor | None = None
    profile: GaussianProfile | None = None

    @classmethod
    def degrade_images(
        cls,
        images: torch.Tensor,
        degradation: Degradation | DegradeAndInterpolate,
        scale: float = 1.0,
        with_blurred: bool = False,
    ) -> ImagePairs:
        """Degrade images ``(n, 1, H, W)``, whole, because a degraded patch depends on its surroundings.

        Args:
            images: of any size; they are cropped to a multiple of a whole factor.
            degradation: of ``(1, H, W)``, along the last axis only, or along both without a change of size. By a factor
                that is not whole, a :class:`~common.degradations.GaussianProfile`.
            scale: factor, at most 1, by which the images are resized first, with a Gaussian mean.
            with_blurred: whether to add the images that are blurred only, by
                :meth:`~common.degradations.DegradeAndInterpolate.blur`.
        """
        if scale < 1:
            shrink = GaussianProfile((1, 1 / scale, 1 / scale))
            images = shrink(_crop_to_factors(images, shrink))
        profile = None
        if isinstance(degradation, DegradeAndInterpolate):
            hr = _crop_to_factors(images, degradation.degradation)
        elif isinstance(degradation.factors[2], int):
            hr = _crop_to_factors(images, degradation)
        elif isinstance(degradation, GaussianProfile):
            # As many columns as the network makes of the whole LR columns.
            hr = images[..., : degradation.compute_hr_size((1, 1, int(images.shape[3] / degradation.factors[2])))[2]]
            margin = math.ceil(_MARGIN * degradation.fwhm * degradation.factors[2]) + _SPLINE
            profile = GaussianProfile(degradation.factors, degradation.fwhm, (0.0, 0.0, margin + degradation.offset[2]))
        else:
            raise ValueError(
                f"{type(degradation).__name__} has the factors {degradation.factors}: by a factor that is not whole, "
                "only GaussianProfile can degrade patches."
            )
        lr = torch.cat([degradation(image.contiguous()) for image in hr.split(1)])
        blurred = None
        if with_blurred:
            if not isinstance(degradation, DegradeAndInterpolate):
                raise TypeError(
                    f"self-anti-aliasing is for interpolated images; the degradation is {type(degradation).__name__}, "
                    "expected DegradeAndInterpolate."
                )
            blurred = torch.cat([degradation.blur(image.contiguous()) for image in hr.split(1)])
        return cls(hr, lr, (lr[:, 0] > AIR).permute(1, 2, 0).cpu().numpy(), blurred, profile)

    @classmethod
    def degrade_at_scales(
        cls,
        images: torch.Tensor,
        degradation: Degradation | DegradeAndInterpolate,
        scales: Sequence[float],
        with_blurred: bool = False,
    ) -> list[ImagePairs]:
        """:meth:`degrade_images` at several scales, without those below 1 that leave fewer than 16 rows or columns."""
        smallest = min(images.shape[2:])
        fitting = [scale for scale in scales if scale == 1 or smallest * scale >= _SMALLEST]
        return [cls.degrade_images(images, degradation, scale, with_blurred) for scale in fitting or [1.0]]

    def sample_patch(self, size: Sequence[int], rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """Patches of HR, LR and blurred images, mirrored together at random.

        They have at most this size: ``(1, p, f w)``, ``(1, p, w)`` and, if there is one, ``(1, p, w)``.
        """
        height, width = (min(n, most) for n, most in zip(size, self.lr.shape[2:], strict=True))
        x, y, n = choose_patch_start(self.tissue, (height, width, 1), rng)
        mirrored = [axis for axis in (1, 2) if rng.random() < 0.5]
        if self.profile is not None:
            return self._degrade_patch(self.hr[n, :, x : x + height], y, width, mirrored, self.profile)
        factor = self.hr.shape[3] // self.lr.shape[3]
        patches = [self.hr[n, :, x : x + height, factor * y : factor * (y + width)]]
        for images in (self.lr, self.blurred):
            if images is not None:
                patches.append(images[n, :, x : x + height, y : y + width])
        return tuple(patch.flip(mirrored) for patch in patches)

    @staticmethod
    def _degrade_patch(
        rows: torch.Tensor, y: int, width: int, mirrored: Sequence[int], profile: GaussianProfile
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches that begin at the HR column nearest to LR column ``y``, from rows ``(1, p, columns)``.

        They are mirrored before they are degraded: LR columns begin with the patch, and do not end with it.
        """
        size, factor = rows.shape[2], profile.factors[2]
        margin = round(profile.offset[2] - (factor - 1) / 2)
        columns = profile.compute_hr_size((1, 1, width))[2]
        first = min(round(factor * y), size - columns)
        around = torch.arange(first - margin, first + columns + margin, device=rows.device).clamp(0, size - 1)
        rows = rows[..., around].flip(tuple(mirrored))
        return rows[..., margin : margin + columns], profile(rows)[..., :width]


def _crop_to_factors(images: torch.Tensor, degradation: Degradation) -> torch.Tensor:
    """Crop images to multiples of a degradation's whole factors."""
    sizes = zip(images.shape[2:], degradation.factors[1:], strict=True)
    rows, columns = (n // factor * factor if isinstance(factor, int) else n for n, factor in sizes)
    return images[:, :, :rows, :columns]


def slice_images(volumes: torch.Tensor, axis: int) -> list[torch.Tensor]:
    """Images ``(n, 1, H, W)`` of volumes ``(B, 1, X, Y, Z)`` across an axis, and the same with H and W swapped."""
    images = volumes.movedim(2 + axis, 1).flatten(0, 1)
    return [images, images.transpose(2, 3)]


class ImagePairLoader(PatchLoader):
    """Endless batches of patches of images of volumes, and of their degraded versions.

    A batch is ``{"hr": (B, 1, p, f w), "lr": (B, 1, p, w)}``, and with ``anti_aliasing`` "blurred" as "lr". Patches
    that are mostly air are avoided. Each pair is mirrored at random along either axis, so the degradation must act
    alike on mirror images.

    Args:
        volumes: slices along the last axis, in [0, 1].
        key: of the volumes; "lr" to learn from the planes of LR scans.
        degradation: as for :meth:`ImagePairs.degrade_images`.
        lr_patch: size ``(p, w)``.
        batch_size, seed, device: as for :class:`PatchLoader`.
        planes: axes of a volume (X, Y, Z) across which images are taken, with either image axis last; default those of
            a :class:`~common.degradations.DegradeImages`.
        scales: as of :meth:`ImagePairs.degrade_at_scales`; one is drawn for each patch; default as ``planes``, or the
            own size.
        anti_aliasing: whether "blurred" is blurred only, by :meth:`~common.degradations.DegradeAndInterpolate.blur`;
            if false, it is "lr" itself. By default a batch has no such images.
    """

    def __init__(
        self,
        volumes: VolumeCache,
        key: str,
        degradation: Degradation | DegradeAndInterpolate,
        lr_patch: Sequence[int],
        batch_size: int,
        seed: int,
        device: torch.device | str,
        planes: Sequence[int] | None = None,
        scales: Sequence[float] | None = None,
        anti_aliasing: bool | None = None,
    ) -> None:
        super().__init__(batch_size, seed, device)
        volumes.to(device)
        self.has_blurred = anti_aliasing is not None
        with_blurred = bool(anti_aliasing)
        planes = getattr(degradation, "planes", ()) if planes is None else planes
        scales = getattr(degradation, "scales", (1.0,)) if scales is None else scales
        if not planes or not set(planes) <= {0, 1, 2}:
            raise ValueError(f"planes is {planes}, expected some of 0, 1 and 2: axes across which images are taken.")
        self.lr_patch = tuple(lr_patch)
        self.pairs = []
        for item, entry in zip(volumes.volumes, volumes.data, strict=True):
            stacks = [images for axis in planes for images in slice_images(item[key][None], axis)]
            pairs = [
                each
                for images in stacks
                for each in ImagePairs.degrade_at_scales(images, degradation, scales, with_blurred)
            ]
            large = [each for each in pairs if (np.array(each.lr.shape[2:]) >= self.lr_patch).all()]
            if not large:
                sizes = sorted({tuple(each.lr.shape[2:]) for each in pairs})
                raise ValueError(
                    f"{entry.get(key, entry)}: the {key} volume has {tuple(item[key].shape[1:])} voxels, and its "
                    f"degraded images {sizes} pixels, fewer than the patch {self.lr_patch}; give a smaller "
                    "--lr_patch, or leave the volume out."
                )
            self.pairs.append(large)

    def _sample_patch(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        stacks = self.pairs[int(rng.integers(len(self.pairs)))]
        hr, lr, *blurred = stacks[int(rng.integers(len(stacks)))].sample_patch(self.lr_patch, rng)
        return {"hr": hr, "lr": lr, **({"blurred": (*blurred, lr)[0]} if self.has_blurred else {})}


class InterpolatedImageLoader(PatchLoader):
    """Endless batches of patches of HR images, and of the same images of the interpolated LR volume.

    A batch is ``{"hr": (B, 1, p, p), "lr": (B, 1, p, p)}``. Unlike those of :class:`ImagePairLoader`, images have lost
    detail along all axes of the volume, as those of an interpolated scan. Patches that are mostly air are avoided.
    Pairs are not mirrored: with k-space truncation LR voxel i lies on HR voxel s i.

    Args:
        volumes: with the keys "hr" and "lr", in [0, 1].
        degradation: from HR to LR, of factors [n, n, n], [n, n, 1] or [1, 1, n]; gives the positions of LR voxels, and
            the axes across which images are taken: those whose images are coarser in LR.
        patch: edge p in HR pixels.
        batch_size, seed, device: as for :class:`PatchLoader`.
    """

    def __init__(
        self,
        volumes: VolumeCache,
        degradation: Degradation,
        patch: int,
        batch_size: int,
        seed: int,
        device: torch.device | str,
    ) -> None:
        super().__init__(batch_size, seed, device)
        volumes.to(device)
        self.size, self.planes = (patch, patch, 1), choose_zero_shot_images(list(degradation.factors))[0]
        for axis in self.planes:
            size = [patch, patch]
            size.insert(axis, 1)
            check_volume_sizes(volumes, "hr", size, "source", option="patch")
        self.pairs = [
            {"hr": item["hr"], "lr": interpolate(item["lr"], degradation, item["hr"].shape[1:])}
            for item in volumes.volumes
        ]
        self.tissue = find_tissue_voxels(volumes, "hr")

    def _sample_patch(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        i, axis = int(rng.integers(len(self.pairs))), self.planes[int(rng.integers(len(self.planes)))]
        start = choose_patch_start(np.moveaxis(self.tissue[i], axis, -1), self.size, rng)
        pair = {key: volume.movedim(axis + 1, -1) for key, volume in self.pairs[i].items()}
        return {key: cut_patch(volume, start, self.size).squeeze(-1) for key, volume in pair.items()}


class TripletLoader(PatchLoader):
    """Endless batches of three successive slices of a scan, and of three equidistant images across an axis in plane.

    A batch is ``{"above", "slice", "below": (B, 1, p, p), "first", "second", "third": (B, 1, p, w)}``. Patches that are
    mostly air are avoided. Each triplet is mirrored at random along either axis, and in its order.

    Args:
        volumes: with the key "lr", thick slices along the last axis, in [0, 1].
        lr_patch: size ``(p, w)``, p in plane and w across the slices.
        factor: HR slices per LR slice.
        batch_size, seed, device: as for :class:`PatchLoader`.
        max_distance: between neighbouring images across an axis in plane, in voxels; default half a slice's thickness.
    """

    def __init__(
        self,
        volumes: VolumeCache,
        lr_patch: Sequence[int],
        factor: int,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        max_distance: int | None = None,
    ) -> None:
        super().__init__(batch_size, seed, device)
        volumes.to(device)
        max_distance = max(1, round(factor / 2)) if max_distance is None else max_distance
        self.lr_patch, self.max_distance, self.volumes = tuple(lr_patch), max_distance, volumes
        edge, slices = self.lr_patch
        across = 2 * max_distance + 1
        for size in ((edge, edge, max(3, slices)), (across, edge, slices), (edge, across, slices)):
            check_volume_sizes(volumes, "lr", size, "target")
        self.tissue = find_tissue_voxels(volumes, "lr")

    def _sample_patch(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        i = int(rng.integers(len(self.volumes)))
        volume, tissue = self.volumes[i]["lr"], self.tissue[i]
        edge, slices = self.lr_patch
        rows = self._sample_triplet(volume, tissue, 2, 1, (edge, edge, 3), rng)
        axis, distance = int(rng.integers(2)), int(rng.integers(1, self.max_distance + 1))
        size = [edge, edge, slices]
        size[axis] = 2 * distance + 1
        images = self._sample_triplet(volume, tissue, axis, distance, size, rng)
        return dict(zip(("above", "slice", "below", "first", "second", "third"), (*rows, *images), strict=True))

    @staticmethod
    def _sample_triplet(
        volume: torch.Tensor,
        tissue: np.ndarray,
        axis: int,
        distance: int,
        size: Sequence[int],
        rng: np.random.Generator,
    ) -> list[torch.Tensor]:
        start = choose_patch_start(tissue, size, rng)
        images = list(cut_patch(volume, start, size).movedim(axis + 1, 0)[::distance])
        flips = [dim for dim in (1, 2) if rng.integers(2)]
        images = [image.flip(flips) for image in images]
        return images[::-1] if rng.integers(2) else images
