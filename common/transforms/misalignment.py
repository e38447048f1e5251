"""Simulated misalignment of a subject between two scans."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

# World axes of an affine in RAS convention.
LEFT_RIGHT, ANTERIOR_POSTERIOR, HEAD_FEET = range(3)


class RandMisalignd(RandomizableTransform, MapTransform):
    r"""Move and shrink the subject at random, as between two scans; the scanner's grid stays in place.

    .. math:: y(p) = x(M^{-1} p), \qquad M = T_{\mathrm{HF,LR}}\; R_{\mathrm{HF}}\; R_{\mathrm{LR}}\;
              S_{\mathrm{AP,LR}}

    in world coordinates p about the centre of the volume: shrinking along the anterior-posterior (A-P) and left-right
    (L-R) axes, rotation about the L-R axis (nodding), then about the head-feet (H-F) axis (shaking), and translation
    along H-F and L-R. The axes are those of the patient. The volume is resampled once, with cubic splines; its border
    repeats. The result is clipped to the range of the input, since splines overshoot.

    Magnitudes are uniform in their ranges and independent. The paper gives no signs: here rotations and translations
    have either sign with equal probability, and shrinking always shrinks. A translation by one voxel is the spacing of
    the array axis nearest to the anatomical one. Shrinking by n voxels scales by (N - n) / N, with N the size of that
    array axis. One draw moves the volumes of all keys.

    Args:
        keys: of volumes ``(C, X, Y, Z)`` with an affine, on one grid.
        rotation: range of the rotation about the H-F and L-R axes, in degrees.
        translation: range of the translation along H-F and L-R, in voxels.
        shrink: range of the shrinking along A-P and L-R, in voxels.
        enabled: whether to move volumes.

    References:
        Liu et al. 2023, section II-D.
    """

    def __init__(
        self,
        keys: KeysCollection,
        rotation: tuple[float, float] = (0.0, 2.0),
        translation: tuple[float, float] = (0.0, 2.0),
        shrink: tuple[float, float] = (0.0, 2.0),
        enabled: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob=1.0)
        for name, values in (("rotation", rotation), ("translation", translation), ("shrink", shrink)):
            if len(values) != 2 or not 0 <= values[0] <= values[1] < np.inf:
                raise ValueError(f"RandMisalignd: {name} is {values}, expected a range (low, high), 0 <= low <= high.")
        self.rotation, self.translation, self.shrink = rotation, translation, shrink
        self.enabled = enabled
        # What was drawn last, by world axis (L-R, A-P, H-F).
        self.degrees, self.shift_voxels, self.shrink_voxels = np.zeros((3, 3))

    def randomize(self, data: None = None) -> None:
        """Draw the next misalignment."""
        super().randomize(data)
        moving, shrinking = [HEAD_FEET, LEFT_RIGHT], [ANTERIOR_POSTERIOR, LEFT_RIGHT]
        self.degrees[moving] = self.R.uniform(*self.rotation, size=2) * self.R.choice([-1, 1], size=2)
        self.shift_voxels[moving] = self.R.uniform(*self.translation, size=2) * self.R.choice([-1, 1], size=2)
        self.shrink_voxels[shrinking] = self.R.uniform(*self.shrink, size=2)

    def compute_world_matrix(self, affine: np.ndarray, size: Any) -> np.ndarray:
        """The matrix (4, 4) in mm of the last draw, for a volume's affine (RAS) and spatial size."""
        affine, size = np.asarray(affine, dtype=np.float64), np.asarray(size)
        # For each world axis the array axis that is nearest to it.
        array_axis = np.argsort(nib.orientations.io_orientation(affine)[:, 0])
        spacing = np.linalg.norm(affine[:3, :3], axis=0)[array_axis]
        extent = size[array_axis]
        turn = Rotation.from_euler("xz", self.degrees[[LEFT_RIGHT, HEAD_FEET]], degrees=True).as_matrix()
        matrix = np.eye(4)
        matrix[:3, :3] = turn @ np.diag((extent - self.shrink_voxels) / extent)
        centre = (affine @ np.append((size - 1) / 2, 1.0))[:3]
        matrix[:3, 3] = centre - matrix[:3, :3] @ centre + self.shift_voxels * spacing
        return matrix

    def misalign(self, volume: MetaTensor) -> MetaTensor:
        """A volume ``(C, X, Y, Z)``, moved by the last draw; integers become float32."""
        affine = volume.affine.numpy(force=True)
        moved_to_original = np.linalg.inv(self.compute_world_matrix(affine, volume.shape[1:]) @ affine) @ affine
        dtype = volume.dtype if volume.is_floating_point() else torch.float32
        voxels = volume.as_tensor().detach().cpu().to(torch.promote_types(dtype, torch.float32)).numpy()
        moved = np.empty_like(voxels)
        for channel, out in zip(voxels, moved, strict=True):
            affine_transform(channel, moved_to_original, output=out, order=3, mode="nearest")
            np.clip(out, channel.min(), channel.max(), out=out)
        return MetaTensor(torch.from_numpy(moved).to(volume.device, dtype)).copy_meta_from(volume)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        if not self.enabled:
            return d
        self.randomize()
        for key in self.key_iterator(d):
            d[key] = self.misalign(d[key])
        return d
