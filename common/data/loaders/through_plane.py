"""Batches of images that contain the axis across the slices: of HR volumes and, drawn independently, of LR scans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .slabs import PatchLoader, check_fit, draw_start
from .volumes import VolumeCache


def check_patch(lr_patch: Sequence[int], factor: int, smallest: int, multiple: int = 4) -> None:
    """Refuse patches whose HR images translation networks cannot take.

    Args:
        lr_patch: size ``(p, w)`` of an LR patch.
        factor: HR slices per LR slice.
        smallest: least pixels of an image along each axis, for discriminators and attribute encoders.
        multiple: of the pixels along each axis, for the content encoders.

    Raises:
        ValueError: with the size found and the one expected.
    """
    if not isinstance(lr_patch, (list, tuple)) or len(lr_patch) != 2:
        raise ValueError(f"lr_patch is {lr_patch!r}, expected two numbers of voxels: in plane and across the slices.")
    p, w = lr_patch[0], factor * lr_patch[1]
    if min(p, w) < smallest or p % multiple or w % multiple:
        raise ValueError(
            f"lr_patch {list(lr_patch)} and scale {factor} give HR images of {p}x{w} pixels; stage 3 needs multiples "
            f"of {multiple}, at least {smallest}. Change --lr_patch, or lower --discriminator_layers, "
            "--discriminator_scales and --attribute_halvings."
        )


class ThroughPlaneLoader(PatchLoader):
    """Patches of thin-slice volumes and, drawn independently, of thick-slice scans, without end.

    A batch is ``{"hr": (B, 1, p, factor w), "hr_recoloured", "lr": (B, 1, p, w)}``, of which [0, 1] has become [-1, 1];
    "hr_recoloured" is "hr" with another contrast, or the same where there are no ``contrasts``. With ``attributes`` it
    also has random attribute codes ``"prior_ct"`` and ``"prior_mr"`` ``(B, attributes)``, of the standard normal
    distribution. The last axis of an image runs across the slices; the other is one of the two in plane, drawn for each
    patch. Patches that are mostly air are avoided. Each is mirrored at random along the axis in plane, and HR patches
    along the other too: nothing pairs them, and the degradation acts on what the augmentation has made.

    Args:
        source: HR volumes, key "hr", slices along the last axis, in [0, 1].
        target: LR scans, key "lr", slices along the last axis, in [0, 1] but for few brighter voxels.
        lr_patch: size ``(p, w)`` of an LR patch.
        factor: HR slices per LR slice.
        batch_size: patches a batch, over all processes.
        seed: of the draws.
        device: of the batches.
        attributes: values of an attribute code; 0 for none.
        contrasts: control points of a random curve that maps the intensities of "hr" to those of "hr_recoloured", so
            that a network that is trained on these cannot rely on one contrast; at least 3, or 0 for none. The darkest
            stays the darkest; what lies between may be exchanged, as CT and MR exchange bone and brain.

    Raises:
        ValueError: when a volume is smaller than a patch, there are 1 or 2 control points, or the batch does not divide
            among the processes.
    """

    def __init__(
        self,
        source: VolumeCache,
        target: VolumeCache,
        lr_patch: Sequence[int],
        factor: int,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        attributes: int = 0,
        contrasts: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, device)
        p, w = lr_patch
        self.sizes = {"hr": (p, factor * w), "lr": (p, w)}
        self.volumes = {"hr": source, "lr": target}
        if contrasts != 0 and contrasts < 3:
            raise ValueError(
                f"contrasts is {contrasts}, expected at least 3 control points, or 0 for the contrast of CT."
            )
        self.attributes, self.contrasts = attributes, contrasts
        for key, group in (("hr", "source"), ("lr", "target")):
            check_fit(self.volumes[key], key, (p, p, self.sizes[key][1]), group)

    def _sample(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        sample = {}
        for key, volumes in self.volumes.items():
            volume = volumes[int(rng.integers(len(volumes)))][key]
            height, width = self.sizes[key]
            # The images are planes of the volume with one of its first axes last.
            volume = volume.transpose(-1, -2) if rng.random() < 0.5 else volume.permute(0, 2, 3, 1)
            x, z, i = draw_start(volume, (height, width, 1), rng)
            image = volume[:, x : x + height, z : z + width, i]
            image = image.flip(1) if rng.random() < 0.5 else image
            if key == "hr":
                image = image.flip(2) if rng.random() < 0.5 else image
                recoloured = self._another_contrast(image, rng) if self.contrasts else image
                sample["hr_recoloured"] = 2 * recoloured - 1
            sample[key] = 2 * image - 1
        for key in ("prior_ct", "prior_mr"):
            if self.attributes:
                sample[key] = torch.from_numpy(rng.standard_normal(self.attributes, dtype=np.float32))
        return sample

    def _another_contrast(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        heights = rng.random(self.contrasts)
        heights[0] = 0
        values = np.interp(image.cpu().numpy(), np.linspace(0, 1, self.contrasts), heights / heights.max())
        return torch.from_numpy(values.astype(np.float32)).to(image.device)
