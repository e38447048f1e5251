"""Rigid registration: of HR to LR for the supervised baseline on misaligned pairs, and of a guide to an LR scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.spatial.transform import Rotation

from ..degradations import Degradation

# Voxels in mm at which a guide is registered. On simulated pairs of 1 mm and 1 x 1 x 5 mm the error was 0.1 to 0.5 mm,
# most of it across the slices; voxels of 1 mm took five times as long and gained no more than 0.1 mm.
_WORKING_SPACING = 2.0


def register_guide(lr: MetaTensor, guide: MetaTensor) -> tuple[np.ndarray, dict[str, Any]]:
    """Find the rigid motion of a guide onto an LR scan: Mattes mutual information, SimpleITK.

    Both lie where their affines say, on any two grids; the search begins there, so the affines must be roughly right.
    No voxel is resampled: the guide is moved by giving it the affine that is returned.

    Args:
        lr: volume ``(1, X, Y, Z)`` with its affine (mm).
        guide: volume ``(1, X, Y, Z)`` of the same subject with its affine (mm).

    Returns:
        The affine (4, 4) of the moved guide, and the quality: the mutual information of the two volumes before and
        after, in nats, the motion of the LR scan's centre as three numbers in mm (to the right, anterior and superior),
        and the angle of the rotation in degrees.

    Raises:
        ImportError: when SimpleITK is not installed.
        ValueError: when the axes of a volume are not orthogonal, or the two do not overlap.
    """
    sitk = _simpleitk()
    names = [volume.meta.get("filename_or_obj", name) for volume, name in ((lr, "the LR scan"), (guide, "the guide"))]
    for volume, name in zip((lr, guide), names, strict=True):
        axes = _axes(volume.affine)
        off = np.abs(axes.T @ axes - np.eye(3)).max()
        if off > 1e-3:
            raise ValueError(
                f"{name}: its axes are not orthogonal (the cosine between two is {off:.4f}, expected less than 0.001), "
                "so no rigid motion aligns it; resample it on orthogonal axes or leave registration out."
            )
    fixed, moving = (_working_image(sitk, volume) for volume in (lr, guide))
    centre = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    start = sitk.Euler3DTransform()
    start.SetCenter(centre)
    try:
        found, quality = _register(sitk, fixed, moving, start)
    except RuntimeError as error:
        raise ValueError(
            f"{names[1]} cannot be registered to {names[0]}: where their affines put them they share no tissue. Check "
            "that both files are of one subject and session and that their headers are right. (SimpleITK: "
            f"{str(error).strip().splitlines()[-1]})"
        ) from None
    return np.linalg.inv(_matrix(found)) @ np.asarray(guide.affine, dtype=np.float64), quality


class RegisterHRd(MapTransform):
    """Move a misaligned HR volume rigidly onto its LR volume: Mattes mutual information, SimpleITK.

    It stands for the registration of Liu et al. 2023, table I, which used extended mutual information in Amira 3D. HR
    is resampled on its own grid with a cubic B-spline.

    Args:
        keys: key of the HR volume ``(1, X, Y, Z)``.
        lr_key: of the LR volume.
        degradation: from HR to LR; says where LR voxels lie on HR's.

    Raises:
        ImportError: when SimpleITK is not installed.
    """

    def __init__(self, keys: KeysCollection, lr_key: str, degradation: Degradation) -> None:
        super().__init__(keys)
        self.lr_key = lr_key
        self.degradation = degradation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sitk = _simpleitk()
        d = dict(data)
        for key in self.key_iterator(d):
            hr = d[key]
            # A frame whose axes are HR's own, in mm, with HR voxel 0 at the origin.
            place = np.diag([*np.linalg.norm(np.asarray(hr.affine)[:3, :3], axis=0), 1.0])
            moving = _image(sitk, hr, place)
            fixed = _image(sitk, d[self.lr_key], self.degradation.lr_affine(place))
            start = sitk.CenteredTransformInitializer(
                fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
            )
            found, _ = _register(sitk, fixed, moving, start)
            moved = sitk.GetArrayFromImage(sitk.Resample(moving, moving, found, sitk.sitkBSpline, 0.0))
            volume = torch.from_numpy(moved.transpose(2, 1, 0).copy())[None]
            d[key] = MetaTensor(volume).copy_meta_from(hr)
        return d


def _simpleitk() -> ModuleType:
    try:
        import SimpleITK
    except ImportError:
        raise ImportError("registration needs SimpleITK: pip install 'mri-sr-bundles[registration]'") from None
    return SimpleITK


def _register(sitk: ModuleType, fixed: Any, moving: Any, start: Any) -> tuple[Any, dict[str, Any]]:
    """The transform from ``fixed`` to ``moving``, found from ``start`` on, and its quality: see register_guide."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
    method.SetMetricSamplingStrategy(method.REGULAR)
    # Samples are moved at random within their voxels; without a seed, each run would find another transform.
    method.SetMetricSamplingPercentage(0.2, seed=1)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=200, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1, 0])
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(start, inPlace=False)
    before = method.MetricEvaluate(fixed, moving)
    found = method.Execute(fixed, moving)
    method.SetInitialTransform(found, inPlace=False)
    after = method.MetricEvaluate(fixed, moving)
    # The transform says where each point comes from; the moving volume itself goes the other way.
    motion = np.linalg.inv(_matrix(found))
    centre = np.array(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    return found, {
        "mutual_information_before": -before,
        "mutual_information_after": -after,
        "translation_mm": (motion[:3, :3] @ centre + motion[:3, 3] - centre).tolist(),
        "rotation_degrees": float(np.rad2deg(Rotation.from_matrix(motion[:3, :3]).magnitude())),
    }


def _matrix(transform: Any) -> np.ndarray:
    """A rigid transform of SimpleITK as a matrix (4, 4)."""
    origin, *ends = (np.array(transform.TransformPoint(p)) for p in [(0.0, 0.0, 0.0), *np.eye(3).tolist()])
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([end - origin for end in ends], axis=1)
    matrix[:3, 3] = origin
    return matrix


def _working_image(sitk: ModuleType, volume: MetaTensor) -> Any:
    """A volume where its affine says, with blocks of its voxels averaged where these are small."""
    image = _image(sitk, volume, np.asarray(volume.affine, dtype=np.float64))
    return sitk.BinShrink(image, [max(1, round(_WORKING_SPACING / s)) for s in image.GetSpacing()])


def _image(sitk: ModuleType, volume: torch.Tensor, affine: np.ndarray) -> Any:
    """A volume at the place of an affine. Its world is taken as it is, RAS or other: the two images share it."""
    image = sitk.GetImageFromArray(torch.as_tensor(volume)[0].float().numpy().transpose(2, 1, 0))
    image.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(_axes(affine).ravel().tolist())
    return image


def _axes(affine: Any) -> np.ndarray:
    """The directions of a grid's axes in space, as columns of length 1."""
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    return columns / np.linalg.norm(columns, axis=0)
