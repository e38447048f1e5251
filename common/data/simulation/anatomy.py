"""Simulated heads as tissue fractions, from nilearn's packaged MNI152 tissue maps warped per subject."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.spatial.transform import Rotation

from .shapes import (
    TissueFractions,
    compute_inside_share,
    join_smoothly,
    make_random_band_fields,
    measure_distance_to_zero,
)
from .signal import upsample

#: First and last corner (mm, RAS) of a simulated field of view, before it is cropped to the head.
FIELD_OF_VIEW = np.array([[-98.0, -130.0, -70.0], [98.0, 106.0, 110.0]])
_STEP = 2  # distances are worked out on every second voxel, which is enough for a smooth surface


@lru_cache(maxsize=1)
def load_template() -> tuple[torch.Tensor, np.ndarray]:
    """Smooth maps of an average head on the MNI152 grid, from the tissue maps packaged with nilearn.

    Returns:
        Maps of shape (8, X, Y, Z): probabilities of grey and white matter, then signed distances in mm (negative
        inside) to brain, inner skull, hull of the skull, face and neck, eyes, airways; and their 4x4 affine.

    Raises:
        ModuleNotFoundError: nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "simulate: nilearn, whose packaged MNI152 tissue maps the simulated heads are made from, is not installed. "
            "Install the extra: pip install '.[demo]'. The command simulate also takes label maps, --labels DIR."
        ) from error
    image = datasets.load_mni152_gm_template(resolution=1)
    gm = np.asarray(image.dataobj, dtype=np.float32)
    wm = np.asarray(datasets.load_mni152_wm_template(resolution=1).dataobj, dtype=np.float32)
    mask = np.asarray(datasets.load_mni152_brain_mask(resolution=1).dataobj) > 0
    depth = ndimage.distance_transform_edt(mask).astype(np.float32)
    coarse = _STEP * ndimage.distance_transform_edt(~mask[::_STEP, ::_STEP, ::_STEP]).astype(np.float32)
    brain = ndimage.gaussian_filter(_refine(coarse, mask.shape) - np.minimum(depth, 20), 1)
    # Averaging heads leaves a thin false rim of grey matter between white matter and ventricles: give it to both.
    ventricles = ((1 - gm - wm > 0.5) & (depth > 22)).astype(np.float32)
    near = np.clip(3 * ndimage.gaussian_filter(ventricles, 2.5), 0, 1)
    rim = near * (gm - ndimage.grey_opening(gm, size=(5, 5, 5)))
    gm, wm = gm - rim, wm + 0.5 * rim

    skull = [_measure_distance_to_closing(brain, radius) for radius in (8.0, 20.0)]
    x, y, z = (
        image.affine[i, 3] + image.affine[i, i] * np.arange(n, dtype=np.float32).reshape(np.roll((-1, 1, 1), i))
        for i, n in enumerate(mask.shape)
    )
    x = np.abs(x)

    def make_ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
        parts = list(zip((x, y, z), centre, radii, strict=True))
        r = np.sqrt(sum(((a - c) / s) ** 2 for a, c, s in parts))
        gradient = np.sqrt(sum(((a - c) / s**2) ** 2 for a, c, s in parts))
        return np.maximum(r * (r - 1) / (gradient + 1e-3), -min(radii)).astype(np.float32)

    face = join_smoothly(make_ellipsoid((0, 20, -50), (68, 62, 66)), make_ellipsoid((0, -35, -95), (66, 62, 75)), 15.0)
    face = join_smoothly(face, make_ellipsoid((0, 74, -54), (12, 18, 20)), 6.0)
    eyes = make_ellipsoid((31, 63, -32), (12, 12, 12))
    airways = np.minimum(make_ellipsoid((7, 54, -52), (5, 30, 16)), make_ellipsoid((0, 10, -75), (11, 8, 35)))
    airways = np.minimum(airways, make_ellipsoid((27, 46, -58), (10, 14, 13)))
    maps = np.stack([gm, wm, brain, *skull, face, eyes, airways]).astype(np.float32)
    return torch.from_numpy(maps), image.affine


def _refine(coarse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate what was worked out on every ``_STEP``-th voxel."""
    covered = tuple(_STEP * (n - 1) + 1 for n in coarse.shape)
    fine = upsample(coarse, covered)
    return np.pad(fine, [(0, n - c) for n, c in zip(shape, covered, strict=True)], mode="edge")


def _measure_distance_to_closing(distance: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance in voxels to the morphological closing of {distance < 0} by a ball, smoothed."""
    grown = distance[::_STEP, ::_STEP, ::_STEP] < radius
    depth = _STEP * ndimage.distance_transform_edt(np.pad(grown, 1, mode="edge"))[1:-1, 1:-1, 1:-1]
    outside = _STEP * ndimage.distance_transform_edt(depth <= radius)
    inside = np.clip(radius - depth, -30, 0)
    return _refine(ndimage.gaussian_filter((outside + inside).astype(np.float32), 1), distance.shape)


def make_random_deformation(shape: tuple[int, ...], extent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random smooth diffeomorphism: the exponential of a stationary velocity field, by scaling and squaring.

    Args:
        shape: shape (X, Y, Z) of the grid on which it is wanted.
        extent: distance in mm between the first and the last voxel, per axis.
        rng: the subject's random generator.

    Returns:
        Displacement in mm, float32 of shape (3, X, Y, Z), about 5 to 10 mm at its largest.

    Source:
        Arsigny et al., MICCAI 2006, "A log-Euclidean framework for statistics on diffeomorphisms".
    """
    coarse = np.rint(extent / 40).astype(int) + 3
    size = [int(n) for n in np.rint(extent / 4) + 1]
    velocity = np.stack(
        [ndimage.zoom(rng.standard_normal(coarse), np.array(size) / coarse, order=3) for _ in range(3)]
    ).astype(np.float32)
    velocity *= rng.uniform(5, 10) / np.sqrt((velocity**2).sum(0)).max()
    # grid_sample counts in half extents and in the order z, y, x.
    to_grid = torch.tensor(2 / extent[::-1].copy(), dtype=torch.float32)
    identity = F.affine_grid(torch.eye(3, 4)[None], [1, 3, *size], align_corners=True)
    steps = 7
    warp = torch.from_numpy(velocity)[None] / 2**steps
    for _ in range(steps):
        grid = identity + warp.permute(0, 2, 3, 4, 1).flip(-1) * to_grid
        warp = warp + F.grid_sample(warp, grid, padding_mode="border", align_corners=True)
    return upsample(warp[0].numpy(), shape)


def make_head_from_template(spacing: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One subject's head: the MNI152 average head, warped and sharpened, with its own folds, vessels and head layers.

    Args:
        spacing: isotropic voxel size in mm.
        rng: the subject's random generator.

    Returns:
        Tissue fractions of shape (len(TISSUES), X, Y, Z) and the 4x4 RAS affine.
    """
    maps, template_affine = load_template()
    shape = tuple(int(n) for n in np.floor((FIELD_OF_VIEW[1] - FIELD_OF_VIEW[0]) / spacing) + 1)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = FIELD_OF_VIEW[0]

    rotation = Rotation.from_euler("xyz", rng.uniform(-5, 5, 3), degrees=True).as_matrix()
    scales = rng.uniform(0.94, 1.06, 3)
    displacement = make_random_deformation(shape, (np.array(shape) - 1) * spacing, rng)
    linear = rotation @ np.diag(scales)
    # world -> template world -> template voxel -> grid_sample's [-1, 1], in the order z, y, x
    to_voxel = np.linalg.inv(template_affine)[:3, :3] @ linear
    offset = np.linalg.inv(template_affine)[:3, 3]
    half = (np.array(maps.shape[1:]) - 1) / 2
    matrix = torch.tensor((to_voxel / half[:, None])[::-1].copy(), dtype=torch.float32)
    shift = torch.tensor((offset / half - 1)[::-1].copy(), dtype=torch.float32)
    axes = [torch.arange(n) * spacing + start for n, start in zip(shape, affine[:3, 3], strict=True)]
    world = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).float()
    world += torch.from_numpy(displacement).permute(1, 2, 3, 0)
    grid = torch.addmm(shift, world.view(-1, 3), matrix.T).view(1, *shape, 3)
    sampled = F.grid_sample(maps[None], grid, padding_mode="border", align_corners=True)[0].numpy()
    del world, grid, displacement
    return _compose_tissues(sampled, spacing, rng), affine


def _sample_thickness(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Smooth field in about [-1.5, 1.5] by which a layer's thickness varies over the head."""
    knots = rng.standard_normal((5, 6, 5)).clip(-1.5, 1.5)
    return upsample(ndimage.zoom(knots, 6, order=3).astype(np.float32), shape)


def _compose_tissues(sampled: np.ndarray, spacing: float, rng: np.random.Generator) -> np.ndarray:
    """Tissue fractions from the warped maps of ``template``, painted from the outside inwards."""
    gm, wm, brain, inner_skull, outer_skull, face, eyes, airways = sampled
    shape = gm.shape
    ripple, folds, tubes_a, tubes_b = make_random_band_fields(
        shape, spacing, (max(4.5, 2.5 * spacing), 11.5, 24.0, 48.0), rng
    )
    thick = [_sample_thickness(shape, rng) for _ in range(3)]

    # Brain against CSF. Where averaging has blurred sulci (a little CSF in grey matter), thin sheets open new ones.
    csf = np.clip(1 - gm - wm, 0, 1)
    sheet = np.abs(measure_distance_to_zero(folds, spacing, 0.02)[0])
    blurred = np.clip(6 * csf, 0, 1) * np.clip(1.4 - 2.0 * wm, 0, 1)
    level, slope = measure_distance_to_zero(csf - 0.5 + blurred * np.exp(-((sheet / 0.9) ** 2)), spacing, 0.12)
    brain_share = compute_inside_share(level + ripple * np.clip(2 * slope - 0.2, 0, 0.35), spacing)
    # White against grey matter: white blades between the new sulci, and a boundary that undulates at the voxel scale.
    blade = blurred * np.clip(sheet / 2.2 - 1, -0.5, 1)
    level, slope = measure_distance_to_zero(gm - wm - 0.35 * blade, spacing, 0.3)
    white_share = compute_inside_share(level + ripple * np.clip(2 * slope - 0.6, 0, 0.5), spacing)
    # Vessels: curves where two fields vanish together, at the brain's surface and in the sulci.
    tube = np.hypot(
        measure_distance_to_zero(tubes_a, spacing, 0.01)[0], measure_distance_to_zero(tubes_b, spacing, 0.005)[0]
    )
    vessel = compute_inside_share(tube - 0.9, spacing) * np.clip(4 * csf, 0, 1)

    dura = inner_skull - (0.8 + 0.3 * thick[0])
    skull = np.minimum(outer_skull, inner_skull) - (6.5 + 1.5 * thick[1])
    head = join_smoothly(skull - (6.5 + 1.2 * thick[2]), face, 14.0)
    # Below the skin's fat, face and neck are muscle with fat septa, patterned by the field of the folds.
    deep = head + 5.5 + 1.5 * thick[0]

    tissues = TissueFractions(shape)
    paint = tissues.paint
    paint("skin", compute_inside_share(head, spacing))
    paint("fat", compute_inside_share(head + 2.0, spacing))
    paint("muscle", compute_inside_share(deep, spacing))
    paint("fat", compute_inside_share(np.maximum(deep, sheet - 0.6 - 0.8 * thick[1]), spacing))
    paint("bone", compute_inside_share(np.maximum(airways - 1.5, deep), spacing))
    paint("fat", compute_inside_share(np.maximum(eyes - 6, deep), spacing))
    paint("csf", compute_inside_share(eyes, spacing))
    paint("bone", compute_inside_share(skull, spacing))
    paint("marrow", compute_inside_share(np.maximum(1.6 - dura, skull + 1.6), spacing))
    paint("air", compute_inside_share(np.maximum(np.maximum(airways, 2 - skull), head + 4), spacing))
    paint("muscle", compute_inside_share(dura, spacing))
    paint("csf", compute_inside_share(inner_skull, spacing))
    brain_share *= compute_inside_share(brain, spacing)
    paint("gm", brain_share)
    paint("wm", brain_share * white_share)
    paint("blood", compute_inside_share(brain, spacing) * vessel)
    return tissues.fractions
