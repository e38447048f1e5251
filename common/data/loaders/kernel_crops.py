"""Crops to learn many degradation kernels at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...io.naming import format_case
from ...runtime.memory import move_to_device
from ...runtime.values import check_whole_numbers
from .slabs import AIR, PatchLoader, check_volume_sizes
from .volumes import VolumeCache

_TISSUE = 0.05  # of a slice's pixels, at least
_SLICES = 32  # most slices of a volume that are used together: neighbours are almost the same


@dataclass
class KernelCase:
    """The slices that one kernel is learned from.

    Attributes:
        volume: file of the LR volume.
        slice: of the LR volume, or None for all of it.
        lr: slices ``(h, w)``.
        hr: slices ``(H, W)``.
    """

    volume: str
    slice: int | None
    lr: list[torch.Tensor] = field(repr=False)
    hr: list[torch.Tensor] = field(repr=False)


def select_kernel_cases(
    source: VolumeCache, target: VolumeCache, kernel_per: str, slice_step: int = 1
) -> list[KernelCase]:
    """Choose the LR and HR slices for each kernel.

    HR slices are from source volumes of the same subject, or of all if the source lacks it. For the kernel of one
    slice, the HR slice nearest to its centre is used (Huang et al. 2021, section 2.A.2), or all of the subject's if
    there is none. Slices of air are left out and reported. LR scans with more detail than HR scans sampled without blur
    are reported, because no blur kernel can explain them.

    Args:
        source, target: volumes with the key "hr", and with the key "lr".
        kernel_per: "slice" for a kernel a slice, or "volume" for one a volume.
        slice_step: distance between the slices of the LR volumes that are used, in slices.
    """
    if kernel_per not in ("slice", "volume"):
        raise ValueError(f"kernel_per is {kernel_per!r}, expected slice or volume.")
    check_whole_numbers(slice_step=slice_step)
    hr = [_find_tissue_slices(volume["hr"], entry) for volume, entry in zip(source.volumes, source.data, strict=True)]
    cases, left_out = [], 0
    alone: set[str] = set()
    for volume, affine, entry in zip(target.volumes, target.affines, target.data, strict=True):
        tissue_slices = _find_tissue_slices(volume["lr"], entry)
        left_out += volume["lr"].shape[-1] - len(tissue_slices)
        planes = volume["lr"][0]
        subject = entry.get("subject")
        same_subject = [
            i for i, other in enumerate(source.data) if subject is not None and other.get("subject") == subject
        ]
        if not same_subject and subject is not None:
            alone.add(str(subject))
        pooled = [
            source.volumes[i]["hr"][0][..., z]
            for i in same_subject or range(len(source))
            for z in select_evenly(hr[i], _SLICES)
        ]
        name = str(entry.get("lr", entry.get("hr")))
        if kernel_per == "volume":
            chosen = select_evenly(tissue_slices[::slice_step], _SLICES)
            cases.append(KernelCase(name, None, [planes[..., z] for z in chosen], pooled))
            continue
        for z in tissue_slices[::slice_step]:
            same = []
            for i in same_subject:
                there = _find_nearest_slice(affine.get("lr"), planes.shape, z, source.affines[i].get("hr"))
                if there in hr[i]:
                    same.append(source.volumes[i]["hr"][0][..., there])
            cases.append(KernelCase(name, z, [planes[..., z]], same or pooled))
    _warn_of_sharp_scans(cases)
    if kernel_per == "slice" and alone:
        print(
            f"kernels: the source has no HR scan of {', '.join(sorted(alone))}; kernels of single slices are then less "
            "accurate than those of volumes (kernel_per volume)"
        )
    if left_out:
        print(f"kernels: {left_out} slices of the LR volumes are (nearly) all air and get no kernel")
    return cases


def check_target(target: VolumeCache, lr_crop: int) -> None:
    """Raise a ValueError for LR volumes, key "lr", that are all air or smaller than a crop of this edge."""
    check_volume_sizes(target, "lr", (lr_crop, lr_crop, 1), "target", "crop")
    for item, entry in zip(target.volumes, target.data, strict=True):
        _find_tissue_slices(item["lr"], entry)


class KernelCropLoader(PatchLoader):
    """Endless batches of HR and LR crops for each of many kernels.

    A batch is ``{"hr": (kernels, crops, c, c), "lr": (kernels, crops, d, d)}``. HR and LR crops are drawn independently
    of each other. Slices of the case have equal probability. The probability of a place is proportional to the mean
    magnitude of the gradient in the crop (Huang et al. 2021, section 2.A.2).

    Args:
        source, target: as for :func:`select_kernel_cases`, to check their sizes.
        cases: one for each kernel.
        crop, lr_crop: edges c and d of HR and LR crops in pixels.
        crops: of each kernel and kind in a batch, as the ``batch_size`` of :class:`PatchLoader`.
        seed, device: as for :class:`PatchLoader`.
    """

    def __init__(
        self,
        source: VolumeCache,
        target: VolumeCache,
        cases: Sequence[KernelCase],
        crop: int,
        lr_crop: int,
        crops: int,
        seed: int,
        device: torch.device | str,
    ) -> None:
        super().__init__(crops, seed, device, "crops")
        check_volume_sizes(source, "hr", (crop, crop, 1), "source", "crop")
        check_volume_sizes(target, "lr", (lr_crop, lr_crop, 1), "target", "crop")
        self.cases = list(cases)
        self.crops = crops
        self.hr = _SliceBank([case.hr for case in cases], crop, self.device)
        self.lr = _SliceBank([case.lr for case in cases], lr_crop, self.device)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            self.iteration += 1
            # Row by row, so that a kernel's crops do not depend on the number of kernels.
            rng = np.random.default_rng([self.seed, self.iteration])
            draws = torch.from_numpy(rng.random((len(self.cases), self.crops, 4)))
            draws = move_to_device(draws[:, list(self.samples)], self.device)
            yield {"hr": self.hr.cut_crops(draws[..., :2]), "lr": self.lr.cut_crops(draws[..., 2:])}


class _SliceBank:
    """Slices of many sizes in one tensor, to cut crops of many cases by one operation."""

    def __init__(self, cases: Sequence[Sequence[torch.Tensor]], crop: int, device: torch.device) -> None:
        # Slices that cases share are kept once.
        known = {(plane.data_ptr(), plane.shape): plane for case in cases for plane in case}
        index, slices = {key: i for i, key in enumerate(known)}, list(known.values())
        members = [[index[plane.data_ptr(), plane.shape] for plane in case] for case in cases]
        places = [_accumulate_crop_weights(plane, crop) for plane in slices]
        self.crop = crop
        self.pixels = torch.cat([plane.flatten() for plane in slices]).to(device)
        # Slice i's share of the places ends at i + 1, so that one search finds the place in any slice.
        self.places = torch.cat([i + share for i, share in enumerate(places)]).to(device)

        def to_tensor(values: Iterable[int]) -> torch.Tensor:
            return torch.tensor(list(values), device=device)

        self.widths = to_tensor(plane.shape[1] for plane in slices)
        self.first_pixel = to_tensor([0, *np.cumsum([plane.numel() for plane in slices])[:-1]])
        self.first_place = to_tensor([0, *np.cumsum([len(share) for share in places])[:-1]])
        self.last_place = self.first_place + to_tensor(len(share) - 1 for share in places)
        self.members = to_tensor(i for case_slices in members for i in case_slices)
        self.counts = to_tensor(len(case_slices) for case_slices in members)
        self.first_member = to_tensor([0, *np.cumsum([len(case_slices) for case_slices in members])[:-1]])

    def cut_crops(self, draws: torch.Tensor) -> torch.Tensor:
        """Convert draws ``(cases, crops, 2)`` in [0, 1) to crops ``(cases, crops, c, c)``."""
        chosen = (draws[..., 0] * self.counts[:, None]).long()
        plane = self.members[self.first_member[:, None] + chosen]
        place = torch.searchsorted(self.places, plane + draws[..., 1], right=True)
        place = place.clamp(self.first_place[plane], self.last_place[plane]) - self.first_place[plane]
        width = self.widths[plane]
        row, column = place // (width - self.crop + 1), place % (width - self.crop + 1)
        along = torch.arange(self.crop, device=place.device)
        first = self.first_pixel[plane] + row * width + column
        pixel = first[..., None, None] + along[:, None] * width[..., None, None] + along
        return self.pixels[pixel]


def _accumulate_crop_weights(plane: torch.Tensor, crop: int) -> torch.Tensor:
    """Cumulated probability of the places of a crop in a slice, row by row, float64."""
    rows, columns = torch.gradient(plane)
    weight = F.avg_pool2d(torch.hypot(rows, columns)[None, None], crop, stride=1).double().flatten()
    return weight.cumsum(0) / weight.sum()


def _find_tissue_slices(volume: torch.Tensor, entry: Mapping) -> list[int]:
    share = (volume[0] > AIR).double().mean(dim=(0, 1))
    slices = (share >= _TISSUE).nonzero().flatten().tolist()
    if not slices:
        raise ValueError(f"{format_case(entry)}: every slice is (nearly) all air, so there is nothing to learn from.")
    return slices


def _find_nearest_slice(
    lr_affine: np.ndarray | None, lr_shape: Sequence[int], z: int, hr_affine: np.ndarray | None
) -> int:
    """The HR slice that is nearest to the centre of LR slice z; without affines, of the same number."""
    if lr_affine is None or hr_affine is None:
        return z
    centre = lr_affine @ [(lr_shape[0] - 1) / 2, (lr_shape[1] - 1) / 2, z, 1]
    return round(float(np.linalg.solve(hr_affine, centre)[2]))


def _warn_of_sharp_scans(cases: Sequence[KernelCase]) -> None:
    """Warn of LR volumes with more detail than HR slices that are sampled at every other pixel."""
    details: dict[str, list[tuple[float, float]]] = {}
    for case in cases:
        lr = np.median([_measure_local_detail(plane) for plane in case.lr])
        hr = np.median([_measure_local_detail(plane[::2, ::2]) for plane in case.hr])
        details.setdefault(case.volume, []).append((float(lr), float(hr)))
    for volume, values in details.items():
        lr, hr = np.median(values, axis=0)
        if lr > hr:
            print(
                f"warning: {volume} has more detail than HR scans that are sampled without any blur ({lr:.3f} against "
                f"{hr:.3f}), so its kernel cannot be found. Are HR and LR swapped, or are the HR scans blurred?"
            )


def _measure_local_detail(plane: torch.Tensor) -> float:
    """Mean difference of tissue from its 3x3 mean, as a share of the mean of tissue."""
    smooth = F.avg_pool2d(plane[None, None], 3, 1)[0, 0]
    tissue = smooth > AIR
    return float((plane[1:-1, 1:-1] - smooth)[tissue].abs().mean() / smooth[tissue].mean())


def select_evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most this number of items, evenly spread."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))]
