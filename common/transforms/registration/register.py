"""Registration of HR to LR (supervised baseline on misaligned pairs), of guides to LR scans, and of authentic LR scans
to HR (evaluation)."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.spatial.transform import Rotation
from skimage.filters import threshold_otsu

from ...degradations.base import Degradation
from ...io.naming import get_output_folder, make_case_stem
from ...io.writing import write_atomically
from ...values import parse_bool
from ..scan.volume import attach_meta

# Voxels in mm at which a guide is registered. On simulated pairs of 1 mm and 1 x 1 x 5 mm the error was 0.1 to 0.5 mm,
# most of it across the slices; voxels of 1 mm took five times as long and gained no more than 0.1 mm.
_WORKING_SPACING = 2.0
# Share of the voxels that are compared; for a B-spline, where a sample costs 200 times as much, about this number.
_SHARE, _SAMPLES = 0.2, 20_000
# Of the B-spline's control points, in mm. Breathing is smooth over some centimetres; finer splines begin to follow
# noise and artefacts, which evaluation should see.
_CONTROL_SPACING = 40.0
_ITERATIONS = 60


def register_guide(lr: MetaTensor, guide: MetaTensor) -> tuple[np.ndarray, dict[str, Any]]:
    """Find the rigid motion of a guide onto an LR scan: Mattes mutual information, SimpleITK.

    The search starts from their affines, which must be roughly right. No voxel is resampled.

    Args:
        lr, guide: volumes ``(1, X, Y, Z)`` of one subject with their affines (mm), on any grids.

    Returns:
        The affine (4, 4) of the moved guide, and the quality: mutual information before and after in nats, translation
        of the LR scan's centre in mm (right, anterior, superior), and angle of the rotation in degrees.

    Raises:
        ImportError: when SimpleITK is not installed.
        ValueError: when the axes of a volume are not orthogonal, or the two do not overlap.
    """
    sitk = _import_simpleitk()
    transform, quality, *_ = _register_rigidly(sitk, lr, guide, ("the LR scan", "the guide"))
    return np.linalg.inv(_convert_to_matrix(transform)) @ np.asarray(guide.affine, dtype=np.float64), quality


class RegisterHRd(MapTransform):
    """Move a misaligned HR volume rigidly onto its LR volume: Mattes mutual information, SimpleITK.

    This replaces the registration of Liu et al. 2023, table I, which used extended mutual information in Amira 3D. HR
    is resampled on its own grid with a cubic B-spline.

    Args:
        keys, lr_key: of the HR volume and the LR volume, ``(1, X, Y, Z)``.
        degradation: from HR to LR; gives the position of LR voxels on the HR grid.
        enabled: whether to register.

    Raises:
        ImportError: when SimpleITK is not installed.
    """

    def __init__(self, keys: KeysCollection, lr_key: str, degradation: Degradation, enabled: bool | str = True) -> None:
        super().__init__(keys)
        self.lr_key = lr_key
        self.degradation = degradation
        self.enabled = parse_bool(enabled, "registered")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.enabled else ():
            sitk, hr = _import_simpleitk(), d[key]
            # A frame whose axes are HR's own, in mm, with HR voxel 0 at the origin.
            place = np.diag([*np.linalg.norm(np.asarray(hr.affine)[:3, :3], axis=0), 1.0])
            moving = _make_image(sitk, hr, place)
            fixed = _make_image(sitk, d[self.lr_key], self.degradation.compute_lr_affine(place))
            start = sitk.CenteredTransformInitializer(
                fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
            )
            transform, _ = _optimise_transform(sitk, fixed, moving, start)
            resampled = sitk.GetArrayFromImage(sitk.Resample(moving, moving, transform, sitk.sitkBSpline, 0.0))
            volume = torch.from_numpy(resampled.transpose(2, 1, 0).copy())[None]
            d[key] = MetaTensor(volume).copy_meta_from(hr)
        return d


class RegisterLRd(MapTransform):
    """Warp an entry's own LR scan onto its HR volume, because patients move in between.

    SimpleITK registers rigidly, then by a cubic B-spline, both with Mattes mutual information, coarse to fine. LR is
    resampled once, with cubic B-splines, to the grid that the degradation gives for HR, and clipped to its own range.
    Outside of LR's field of view its border is repeated. A step that lowers the similarity, or that folds space, is
    left out with a warning. An entry without HR or without LR stays as it is.

    Args:
        keys, reference: of the LR scan and the HR volume, ``(1, X, Y, Z)`` with their affines.
        degradation: from HR to LR; gives the position of LR voxels on the HR grid.
        quality_dir: folder for ``<LR scan's name>_registration.json``: mutual information in nats before and after,
            mean and largest displacement of tissue in mm, the applied steps, the least Jacobian determinant, and the
            share of voxels from outside of LR's field of view.
        enabled: whether to register.

    Raises:
        ImportError: when SimpleITK is not installed.
        ValueError: when the axes of a volume are not orthogonal, or the two do not overlap.

    References:
        Huang et al. 2021, section 2.C.1, which uses B-splines too.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference: str,
        degradation: Degradation,
        quality_dir: str | os.PathLike | None = None,
        enabled: bool | str = True,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.reference = reference
        self.degradation = degradation
        self.quality_dir = quality_dir
        self.enabled = parse_bool(enabled, "register")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d) if self.enabled and self.reference in d else ():
            sitk, lr = _import_simpleitk(), d[key]
            x, y, z = [n // f * f for n, f in zip(d[self.reference].shape[1:], self.degradation.factors, strict=True)]
            hr = d[self.reference][:, :x, :y, :z]
            affine = np.asarray(self.degradation.compute_lr_affine(hr.affine), dtype=np.float64)
            grid = _make_image(sitk, torch.zeros(1, *self.degradation.compute_lr_size((x, y, z))), affine)
            with _use_one_thread(sitk):
                transform, quality = self._find_transform(sitk, hr, lr, grid)
            warped = sitk.Resample(
                _make_image(sitk, lr), grid, transform, sitk.sitkBSpline, useNearestNeighborExtrapolator=True
            )
            volume = torch.from_numpy(sitk.GetArrayFromImage(warped).transpose(2, 1, 0).copy())[None]
            d[key] = attach_meta(volume.clamp(lr.min().item(), lr.max().item()), affine, lr.meta)
            if self.quality_dir is not None:
                stem = make_case_stem(lr.meta["filename_or_obj"], d.get("subject"))
                with write_atomically(get_output_folder(self.quality_dir) / f"{stem}_registration.json") as temporary:
                    temporary.write_text(json.dumps(quality, indent=2) + "\n")
        return d

    def _find_transform(
        self, sitk: ModuleType, hr: MetaTensor, lr: MetaTensor, grid: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The transform from HR to LR, and its quality on the grid of the result."""
        rigid, _, fixed, moving = _register_rigidly(sitk, hr, lr, ("the HR volume", "the LR scan"))
        bspline = _register_deformably(sitk, fixed, moving, rigid, hr)
        rigid_transform = sitk.Euler3DTransform()
        start = points = _transform_voxels(sitk, rigid_transform, grid)
        before = after = _compute_similarity(sitk, fixed, moving, rigid_transform)
        applied, least = [], 1.0
        # Of a composite transform the last comes first.
        for step, transform in (("rigid", rigid), ("B-spline", sitk.CompositeTransform([rigid, bspline]))):
            positions = _transform_voxels(sitk, transform, grid)
            determinant = float((_compute_volumes(positions) / _compute_volumes(start)).min())
            similarity = _compute_similarity(sitk, fixed, moving, transform)
            if determinant > 0 and similarity >= after:
                rigid_transform, points, after, least = transform, positions, similarity, determinant
                applied.append(step)
                continue
            why = (
                f"it lowers the mutual information from {after:.4f} to {similarity:.4f} nats"
                if determinant > 0
                else f"it folds space over (the least Jacobian determinant is {determinant:.3f}, expected above 0)"
            )
            warnings.warn(
                f"{lr.meta.get('filename_or_obj', 'the LR scan')}: the {step} registration to "
                f"{hr.meta.get('filename_or_obj', 'the HR volume')} is left out, because {why}. Look at both. Leave "
                "the pair out of the evaluation if they do not show the same.",
                stacklevel=2,
            )
        tissue = sitk.GetArrayFromImage(sitk.Resample(fixed, grid)).transpose(2, 1, 0)
        distance = np.linalg.norm(points - start, axis=-1)[tissue > threshold_otsu(tissue)]
        affine = np.asarray(lr.affine, dtype=np.float64)
        index = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        outside = ((index < -0.5) | (index > np.array(lr.shape[1:]) - 0.5)).any(axis=-1)
        return rigid_transform, {
            "applied": applied,
            "mutual_information_before": before,
            "mutual_information_after": after,
            "mean_displacement_mm": float(distance.mean()),
            "largest_displacement_mm": float(distance.max()),
            "least_jacobian_determinant": least,
            "share_outside": float(outside.mean()),
        }


def _import_simpleitk() -> ModuleType:
    try:
        import SimpleITK
    except ImportError:
        raise ImportError("registration needs SimpleITK: pip install SimpleITK.") from None
    return SimpleITK


@contextmanager
def _use_one_thread(sitk: ModuleType) -> Iterator[None]:
    """Run SimpleITK in one thread. With more, rounding varies, and B-splines differed by up to 2 mm between runs."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    # Set globally, because the optimizers ignore the number of threads of their method.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _register_rigidly(
    sitk: ModuleType, fixed: MetaTensor, moving: MetaTensor, kinds: tuple[str, str]
) -> tuple[Any, dict[str, Any], Any, Any]:
    """Register two volumes rigidly, starting from their affines: the result of _register and their working images."""
    names = [volume.meta.get("filename_or_obj", kind) for volume, kind in zip((fixed, moving), kinds, strict=True)]
    for volume, name in zip((fixed, moving), names, strict=True):
        axes = _get_axes(volume.affine)
        off = np.abs(axes.T @ axes - np.eye(3)).max()
        if off > 1e-3:
            raise ValueError(
                f"{name}: its axes are not orthogonal (the cosine between two is {off:.4f}, expected less than 0.001), "
                "so no rigid motion aligns it. Resample it to orthogonal axes, or do not register it."
            )
    images = []
    for image in (_make_image(sitk, volume) for volume in (fixed, moving)):
        images.append(sitk.BinShrink(image, [max(1, round(_WORKING_SPACING / s)) for s in image.GetSpacing()]))
    start = sitk.Euler3DTransform()
    start.SetCenter(images[0].TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in images[0].GetSize()]))
    try:
        return *_optimise_transform(sitk, *images, start), *images  # type: ignore[call-arg]
    except RuntimeError as error:
        raise ValueError(
            f"{names[1]} cannot be registered to {names[0]}: by their affines they share no tissue. Check "
            "that both files are of one subject and session and that their headers are right. (SimpleITK: "
            f"{str(error).strip().splitlines()[-1]})"
        ) from None


def _register_deformably(sitk: ModuleType, fixed: Any, moving: Any, rigid: Any, domain: MetaTensor) -> Any:
    """The cubic B-spline that comes before a rigid transform from ``fixed`` to ``moving``, over a whole volume."""
    domain_image = _make_image(sitk, domain)
    mesh = [
        max(1, round(n * s / _CONTROL_SPACING))
        for n, s in zip(domain_image.GetSize(), domain_image.GetSpacing(), strict=True)
    ]
    spline_transform = sitk.BSplineTransformInitializer(domain_image, mesh, order=3)
    method = _make_registration(sitk, min(1.0, _SAMPLES / fixed.GetNumberOfPixels()))
    method.SetOptimizerAsLBFGSB(numberOfIterations=_ITERATIONS, costFunctionConvergenceFactor=1e7)
    method.SetMovingInitialTransform(rigid)
    method.SetInitialTransform(spline_transform, inPlace=True)
    method.Execute(fixed, moving)
    return spline_transform


def _make_registration(sitk: ModuleType, share: float) -> Any:
    """A registration method that compares by Mattes mutual information, at a share of the voxels."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
    method.SetMetricSamplingStrategy(method.REGULAR)
    # Samples are moved at random within their voxels; without a seed, each run would find another transform.
    method.SetMetricSamplingPercentage(share, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1, 0])
    return method


def _compute_similarity(sitk: ModuleType, fixed: Any, moving: Any, transform: Any) -> float:
    """The mutual information of two images in nats, one of them moved by a transform from ``fixed`` to ``moving``."""
    method = _make_registration(sitk, _SHARE)
    method.SetInitialTransform(transform)
    return -method.MetricEvaluate(fixed, moving)


def _transform_voxels(sitk: ModuleType, transform: Any, grid: Any) -> np.ndarray:
    """Where a transform takes the voxels of a grid: points ``(X, Y, Z, 3)`` in mm."""
    frame = grid.GetSize(), grid.GetOrigin(), grid.GetSpacing(), grid.GetDirection()
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, *frame)
    index = np.stack(np.meshgrid(*map(np.arange, grid.GetSize()), indexing="ij"), axis=-1)
    columns = np.reshape(grid.GetDirection(), (3, 3)) * grid.GetSpacing()
    return index @ columns.T + grid.GetOrigin() + sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3)


def _compute_volumes(points: np.ndarray) -> np.ndarray:
    """The signed volumes of the voxels centred on points ``(X, Y, Z, 3)``."""
    return np.linalg.det(np.stack(np.gradient(points, axis=(0, 1, 2)), axis=-1))


def _optimise_transform(sitk: ModuleType, fixed: Any, moving: Any, start: Any) -> tuple[Any, dict[str, Any]]:
    """Find the transform from ``fixed`` to ``moving``, starting from ``start``, and its quality: see register_guide."""
    method = _make_registration(sitk, _SHARE)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=200, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    before = method.MetricEvaluate(fixed, moving)
    transform = method.Execute(fixed, moving)
    method.SetInitialTransform(transform, inPlace=False)
    after = method.MetricEvaluate(fixed, moving)
    # The transform says where each point comes from; the moving volume itself goes the other way.
    motion = np.linalg.inv(_convert_to_matrix(transform))
    centre = np.array(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    return transform, {
        "mutual_information_before": -before,
        "mutual_information_after": -after,
        "translation_mm": (motion[:3, :3] @ centre + motion[:3, 3] - centre).tolist(),
        "rotation_degrees": float(np.rad2deg(Rotation.from_matrix(motion[:3, :3]).magnitude())),
    }


def _convert_to_matrix(transform: Any) -> np.ndarray:
    """A rigid transform of SimpleITK as a matrix (4, 4)."""
    origin, *ends = (np.array(transform.TransformPoint(p)) for p in [(0.0, 0.0, 0.0), *np.eye(3).tolist()])
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([end - origin for end in ends], axis=1)
    matrix[:3, 3] = origin
    return matrix


def _make_image(sitk: ModuleType, volume: MetaTensor | Any, affine: Any = None) -> Any:
    """A volume as an image at the place of an affine, by default its own; world coordinates are not converted."""
    affine = np.asarray(volume.affine if affine is None else affine, dtype=np.float64)
    image = sitk.GetImageFromArray(torch.as_tensor(volume)[0].float().numpy().transpose(2, 1, 0))
    image.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(_get_axes(affine).ravel().tolist())
    return image


def _get_axes(affine: Any) -> np.ndarray:
    """The directions of a grid's axes in space, as columns of length 1."""
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    return columns / np.linalg.norm(columns, axis=0)
