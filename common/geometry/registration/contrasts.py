"""Whether two contrasts of a person lie on each other, and their registration, by mutual information."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from ..gaussian import compute_coarsening_sigma
from ..tissue import find_tissue

# mm. To test whether two lie on each other, both are blurred to it; to register them, their voxels are averaged to it.
# On simulated pairs of 1 mm and 1 x 1 x 5 mm the error of registration was 0.1 to 0.5 mm, most of it across the slices;
# voxels of 1 mm took five times as long and gained no more than 0.1 mm.
_SPACING = 2.0
# A guide is misaligned if a small step raises the similarity by more than this share. On six real pairs the best step
# raised it by at most 0.009 if the guide was aligned, and by at least 0.026 if it was off by 1.4 mm or more.
_STEPS, GAIN = (1.0, 2.0), 0.02
_POINTS, _BINS = 40_000, 64
_AROUND = {"LR": "left-right", "PA": "posterior-anterior", "IS": "inferior-superior"}
# Share of the voxels that are compared; for a B-spline, where a sample costs 200 times as much, about this number.
_SHARE, _SAMPLES = 0.2, 20_000
# Of the B-spline's control points, in mm. Breathing is smooth over some centimetres; finer splines begin to follow
# noise and artefacts, which evaluation should see.
_CONTROL_SPACING = 40.0
_ITERATIONS = 60


def find_misplacement(lr: MetaTensor, guide: MetaTensor, steps: Sequence[float] = _STEPS) -> dict[str, Any]:
    """Test whether a small step makes a guide more similar to its LR scan than its affine does.

    The similarity is scikit-image's normalised mutual information minus 1, at 40,000 random points in both fields of
    view, with both volumes blurred to 2 mm. There are twelve steps of each size: to each side and about each axis.

    Args:
        lr, guide: volumes ``(1, X, Y, Z)`` of one subject with their affines (mm).
        steps: sizes in mm and degrees.

    Returns:
        ``similarity``: at the guide's present position, 0 to 1. ``step``: the best step, in words. ``gain``:
        relative increase of the similarity by that step. ``misplaced``: whether the gain is larger than in aligned
        pairs. If the two do not overlap, similarity and gain are 0 and ``misplaced`` is true.
    """
    from skimage.metrics import normalized_mutual_information  # here, because it loads scipy.stats, which takes long

    volumes = [_blur(volume) for volume in (lr, guide)]
    affines = [np.asarray(volume.affine, dtype=np.float64) for volume in (lr, guide)]
    index = np.random.default_rng(0).uniform(0, np.array(volumes[0].shape)[:, None] - 1, (3, _POINTS))
    world = affines[0][:3, :3] @ index + affines[0][:3, 3:]
    back = np.linalg.inv(affines[1])
    there = back[:3, :3] @ world + back[:3, 3:]
    inside = ((there >= 0) & (there <= np.array(volumes[1].shape)[:, None] - 1)).all(axis=0)
    if not inside.any():
        return {"similarity": 0.0, "step": "none", "gain": 0.0, "misplaced": True}
    values, world = map_coordinates(volumes[0], index[:, inside], order=1), world[:, inside]
    bright = find_tissue(values)
    centre = world[:, bright if bright.any() else slice(None)].mean(axis=1, keepdims=True)

    def compute_similarity(rotation: np.ndarray, shift: np.ndarray) -> float:
        positions = (
            Rotation.from_rotvec(rotation, degrees=True).as_matrix() @ (world - centre) + centre + shift[:, None]
        )
        sampled = map_coordinates(volumes[1], back[:3, :3] @ positions + back[:3, 3:], order=1, mode="nearest")
        return float(normalized_mutual_information(values, sampled, bins=_BINS)) - 1

    still, gains = np.zeros(3), {}
    base = compute_similarity(still, still)
    for size in steps:
        for axis, (sides, around) in enumerate(_AROUND.items()):
            for side, sign in zip(sides, (-1, 1), strict=True):
                step = sign * size * np.eye(3)[axis]
                # The points move the other way than the guide.
                gains[f"{size:g} mm to {side}"] = compute_similarity(still, -step)
                gains[f"{sign * size:g} degrees about the {around} axis"] = compute_similarity(-step, still)
    best = max(gains, key=gains.__getitem__)
    gain = gains[best] / base - 1 if base > 0 else 0.0
    return {"similarity": base, "step": best, "gain": gain, "misplaced": gain > GAIN or base <= 0}


def _blur(volume: MetaTensor) -> np.ndarray:
    """A volume ``(1, X, Y, Z)`` on its own grid, blurred to the working spacing."""
    spacing = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)
    sigma = compute_coarsening_sigma(spacing, _SPACING) / spacing
    return gaussian_filter(torch.as_tensor(volume)[0].float().numpy(), sigma)


def register_contrasts(fixed: MetaTensor, moving: MetaTensor) -> tuple[np.ndarray, dict[str, Any]]:
    """Find the rigid motion of a volume onto another contrast: Mattes mutual information, SimpleITK.

    The search starts from their affines, which must be roughly right. No voxel is resampled.

    Args:
        fixed, moving: volumes ``(1, X, Y, Z)`` of one subject with their affines (mm), on any grids.

    Returns:
        The affine (4, 4) of the moved volume, and the quality: mutual information before and after in nats, translation
        of the other's centre in mm (right, anterior, superior), and angle of the rotation in degrees.

    Raises:
        ImportError: when SimpleITK is not installed.
        ValueError: when the axes of a volume are not orthogonal, or the two do not overlap.
    """
    sitk = _import_simpleitk()
    transform, quality, *_ = _register_rigidly(sitk, fixed, moving)
    return np.linalg.inv(_convert_to_matrix(transform)) @ np.asarray(moving.affine, dtype=np.float64), quality


def resample_rigidly(fixed: Any, fixed_affine: np.ndarray, moving: Any, moving_affine: np.ndarray) -> torch.Tensor:
    """Move a volume rigidly onto another, from centre to centre at first, and resample it by cubic B-splines.

    Args:
        fixed, fixed_affine: the other ``(1, X, Y, Z)``, and its place in the frame of the volume.
        moving, moving_affine: the volume, and its place.

    Returns:
        The moved volume ``(1, X, Y, Z)`` on its own grid, 0 where nothing is known.
    """
    sitk = _import_simpleitk()
    image, target = _make_image(sitk, moving, moving_affine), _make_image(sitk, fixed, fixed_affine)
    start = sitk.CenteredTransformInitializer(
        target, image, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    transform, _ = _optimise_transform(sitk, target, image, start)
    return _get_voxels(sitk, sitk.Resample(image, image, transform, sitk.sitkBSpline, 0.0))


def warp_onto(
    fixed: MetaTensor, moving: MetaTensor, size: Sequence[int], affine: np.ndarray
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Register a volume rigidly, then by a cubic B-spline, and resample it once by cubic B-splines; its border repeats.

    A step that lowers the mutual information, or that folds space, is left out with a warning.

    Args:
        fixed, moving: as for :func:`register_contrasts`, on which and which.
        size, affine: of the grid of the result.

    Returns:
        The volume ``(1, *size)``, and the quality: mutual information in nats before and after, mean and largest
        displacement of tissue in mm, the applied steps, the least Jacobian determinant, and the share of voxels from
        outside of the volume's field of view.
    """
    sitk = _import_simpleitk()
    grid = _make_image(sitk, torch.zeros(1, *size), affine)
    with _use_one_thread(sitk):
        transform, quality = _find_warp(sitk, fixed, moving, grid)
    image = _make_image(sitk, moving)
    warped = sitk.Resample(image, grid, transform, sitk.sitkBSpline, useNearestNeighborExtrapolator=True)
    return _get_voxels(sitk, warped), quality


def _find_warp(sitk: ModuleType, hr: MetaTensor, lr: MetaTensor, grid: Any) -> tuple[Any, dict[str, Any]]:
    """The transform from HR to LR, and its quality on the grid of the result."""
    rigid, _, fixed, moving = _register_rigidly(sitk, hr, lr)
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
    distance = np.linalg.norm(points - start, axis=-1)[find_tissue(tissue)]
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


def _register_rigidly(sitk: ModuleType, fixed: MetaTensor, moving: MetaTensor) -> tuple[Any, dict[str, Any], Any, Any]:
    """The rigid transform from ``fixed`` to ``moving``, its quality, and the two images on coarse voxels."""
    names = [volume.meta.get("filename_or_obj", "a volume") for volume in (fixed, moving)]
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
        images.append(sitk.BinShrink(image, [max(1, round(_SPACING / s)) for s in image.GetSpacing()]))
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
    """Find the transform from ``fixed`` to ``moving``, from a start, and its quality: see register_contrasts."""
    method = _make_registration(sitk, _SHARE)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=200, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    transform = method.Execute(fixed, moving)
    # The transform says where each point comes from; the moving volume itself goes the other way.
    motion = np.linalg.inv(_convert_to_matrix(transform))
    centre = np.array(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    return transform, {
        "mutual_information_before": _compute_similarity(sitk, fixed, moving, start),
        "mutual_information_after": _compute_similarity(sitk, fixed, moving, transform),
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


def _get_voxels(sitk: ModuleType, image: Any) -> torch.Tensor:
    """The voxels of an image, ``(1, X, Y, Z)``."""
    return torch.from_numpy(sitk.GetArrayFromImage(image).transpose(2, 1, 0).copy())[None]


def _get_axes(affine: Any) -> np.ndarray:
    """The directions of a grid's axes in space, as columns of length 1."""
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    return columns / np.linalg.norm(columns, axis=0)
