"""Simulated misalignment of a subject between two scans."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, RandomizableTransform
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

# World axes of an affine in RAS convention.
LEFT_RIGHT, ANTERIOR_POSTERIOR, HEAD_FEET = range(3)

CUBIC = 3


class RandMisalign(RandomizableTransform):
    r"""Move and shrink the subject at random, as between two scans; the scanner's grid stays in place.

    .. math:: y(p) = x(M^{-1} p), \qquad M = T_{\mathrm{HF,LR}}\; R_{\mathrm{HF}}\; R_{\mathrm{LR}}\;
              S_{\mathrm{AP,LR}}

    in world coordinates p about the centre of the volume: shrinking along the anterior-posterior (A-P) and left-right
    (L-R) axes, rotation about the L-R axis (nodding), then about the head-feet (H-F) axis (shaking), and translation
    along H-F and L-R. The axes are those of the patient, read from the affine: the same draw moves the same anatomy the
    same way in a volume stored as RAS, LPS, sagittal PIR or oblique. M is composed first and the volume resampled once,
    with cubic splines; voxels that come from outside the volume repeat its border, and the result is clipped to the
    range of the input, since splines overshoot. The affine of the volume does not change.

    Magnitudes are uniform in their ranges and independent. The paper gives no signs: here rotations and translations
    have either sign with equal probability, and shrinking always shrinks. A translation by one voxel is the spacing of
    the array axis nearest to the anatomical one. Shrinking by n voxels scales by (N - n) / N, with N the size of that
    array axis.

    Args:
        rotation: range of the rotation about the H-F and L-R axes, in degrees.
        translation: range of the translation along H-F and L-R, in voxels.
        shrink: range of the shrinking along A-P and L-R, in voxels.

    Raises:
        ValueError: when a range is not ``0 <= low <= high``.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> from common.transforms.registration.misalignment import RandMisalign
        >>> volume = MetaTensor(torch.rand(1, 16, 16, 16))
        >>> moved = RandMisalign().set_random_state(seed=0)(volume)
        >>> moved.shape == volume.shape and torch.equal(moved.affine, volume.affine)
        True

    References:
        Liu et al., Unsupervised Representation Learning for 3-Dimensional MRI Super-Resolution with Degradation
        Adaptation, IEEE TAI 2024, section II-D.
    """

    def __init__(
        self,
        rotation: Sequence[float] = (0.0, 2.0),
        translation: Sequence[float] = (0.0, 2.0),
        shrink: Sequence[float] = (0.0, 2.0),
    ) -> None:
        super().__init__(prob=1.0)
        self.rotation = _as_range(rotation, "rotation", "degrees")
        self.translation = _as_range(translation, "translation", "voxels")
        self.shrink = _as_range(shrink, "shrink", "voxels")
        # What was drawn last, by world axis (L-R, A-P, H-F).
        self.degrees = np.zeros(3)
        self.shift_voxels = np.zeros(3)
        self.shrink_voxels = np.zeros(3)

    def randomize(self, data: None = None) -> None:
        """Draw the next misalignment."""
        super().randomize(data)
        moving, shrinking = [HEAD_FEET, LEFT_RIGHT], [ANTERIOR_POSTERIOR, LEFT_RIGHT]
        self.degrees[moving] = self.R.uniform(*self.rotation, size=2) * self.R.choice([-1, 1], size=2)
        self.shift_voxels[moving] = self.R.uniform(*self.translation, size=2) * self.R.choice([-1, 1], size=2)
        self.shrink_voxels[shrinking] = self.R.uniform(*self.shrink, size=2)

    def world_matrix(self, affine: np.ndarray, size: Any) -> np.ndarray:
        """The world matrix of the misalignment that was drawn last.

        Args:
            affine: voxel-to-world affine (4, 4) of the volume, RAS, in mm.
            size: spatial size (X, Y, Z) of the volume.

        Returns:
            Matrix (4, 4) from world coordinates before to world coordinates after, in mm.

        Raises:
            ValueError: when the affine is singular, or the volume is too small for the shrinking.
        """
        affine, size = np.asarray(affine, dtype=np.float64), np.asarray(size)
        if np.linalg.matrix_rank(affine[:3, :3]) < 3:
            raise ValueError(
                f"RandMisalign needs an invertible affine to find the patient's axes, got {affine.tolist()}. "
                "Repair the volume's header, e.g. with nibabel, before it is loaded."
            )
        # For each world axis the array axis that is nearest to it.
        array_axis = np.argsort(nib.orientations.io_orientation(affine)[:, 0])
        spacing = np.linalg.norm(affine[:3, :3], axis=0)[array_axis]
        extent = size[array_axis]
        if np.any(self.shrink_voxels >= extent):
            raise ValueError(
                f"RandMisalign cannot shrink a volume of {extent.tolist()} voxels (L-R, A-P, H-F) by "
                f"{self.shrink_voxels.tolist()} voxels. Lower the range `shrink` or give a whole volume."
            )
        turn = Rotation.from_euler("xz", self.degrees[[LEFT_RIGHT, HEAD_FEET]], degrees=True).as_matrix()
        matrix = np.eye(4)
        matrix[:3, :3] = turn @ np.diag((extent - self.shrink_voxels) / extent)
        centre = (affine @ np.append((size - 1) / 2, 1.0))[:3]
        matrix[:3, 3] = centre - matrix[:3, :3] @ centre + self.shift_voxels * spacing
        return matrix

    def __call__(self, img: MetaTensor, randomize: bool = True) -> MetaTensor:
        """Misalign a volume.

        Args:
            img: volume ``(C, X, Y, Z)`` with its affine.
            randomize: whether to draw anew; else the last draw is repeated.

        Returns:
            The misaligned volume, same shape, affine, device and floating dtype (float32 for integers).

        Raises:
            TypeError: when the volume carries no affine.
            ValueError: when the volume is not ``(C, X, Y, Z)``.
        """
        if not isinstance(img, MetaTensor):
            raise TypeError(
                f"RandMisalign expects a MetaTensor, whose affine gives the patient's axes, got {type(img).__name__}. "
                "Load the volume with monai.transforms.LoadImage, or wrap it: MetaTensor(volume, affine=affine)."
            )
        if img.ndim != 4:
            raise ValueError(
                f"RandMisalign expects a volume (C, X, Y, Z), got shape {tuple(img.shape)}. "
                "Add the channel with monai.transforms.EnsureChannelFirst."
            )
        if randomize:
            self.randomize()
        affine = img.affine.numpy(force=True)
        original_to_moved = self.world_matrix(affine, img.shape[1:])
        moved_to_original = np.linalg.inv(original_to_moved @ affine) @ affine
        dtype = img.dtype if img.is_floating_point() else torch.float32
        volume = img.as_tensor().detach().cpu().to(torch.promote_types(dtype, torch.float32)).numpy()
        moved = np.empty_like(volume)
        for channel, out in zip(volume, moved, strict=True):
            affine_transform(channel, moved_to_original, output=out, order=CUBIC, mode="nearest")
            np.clip(out, channel.min(), channel.max(), out=out)
        return MetaTensor(torch.from_numpy(moved).to(img.device, dtype)).copy_meta_from(img)


class RandMisalignd(MapTransform, Randomizable):
    """Dictionary version of :class:`RandMisalign`: one draw moves the volumes of all keys.

    Translation and shrinking are in voxels of each key's own grid, so the keys move together if they share one grid.

    Args:
        keys: keys of the volumes to misalign, e.g. the HR volume before it is cut into patches.
        allow_missing_keys: whether a key may be missing.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.misalign = RandMisalign()

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandMisalignd:
        self.misalign.set_random_state(seed, state)
        return self

    def randomize(self, data: None = None) -> None:
        """Draw the next misalignment."""
        self.misalign.randomize(data)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Misalign the volumes ``(C, X, Y, Z)`` of all keys with one draw."""
        moved = dict(data)
        self.randomize()
        for key in self.key_iterator(moved):
            moved[key] = self.misalign(moved[key], randomize=False)
        return moved


def _as_range(values: Sequence[float], name: str, unit: str) -> tuple[float, float]:
    if len(values) != 2 or not 0 <= values[0] <= values[1] < np.inf:
        raise ValueError(f"RandMisalign: {name} must be a range (low, high) in {unit}, 0 <= low <= high, got {values}.")
    return float(values[0]), float(values[1])
