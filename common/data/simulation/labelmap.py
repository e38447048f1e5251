"""Heads as tissue fractions from FreeSurfer-style label maps, with or without labels outside of the brain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from ...io.images import open_image
from .signal import TISSUES

#: FreeSurfer's aseg labels by tissue. From 500 on come the labels of whole-head maps as SynthSeg ships them, whose
#: meaning was read off their places: 502 arteries, 506 eyes, 507 soft tissue, 508 eye muscles, 509 nasal mucosa,
#: 511 skin, 512 spinal cord, 514 dura and veins, 515 cortical bone, 516 marrow, 530 optic nerve. Choroid plexus (also
#: 136, 137, 163, 164) and lesions (25, 57, 77 to 79) count as grey matter, which they are closest to in T1w and T2w.
LABELS = {
    "air": (0,),
    "wm": (2, 7, 16, 28, 41, 46, 60, 85, 192, 250, 251, 252, 253, 254, 255, 512, 530),
    "gm": (
        *(3, 8, 9, 10, 11, 12, 13, 17, 18, 26, 27, 42, 47, 48, 49, 50, 51, 52, 53, 54, 58, 59, 80),
        *(25, 31, 57, 63, 77, 78, 79, 136, 137, 163, 164),
    ),
    "csf": (4, 5, 14, 15, 24, 43, 44, 72, 506),
    "blood": (30, 62, 502),
    "bone": (515,),
    "marrow": (516,),
    "muscle": (507, 508, 509, 514),
    "skin": (511,),
}
#: Parcellations of cortex (grey) and of the white matter beneath it: FreeSurfer's aparc, a2009s and wmparc ranges.
PARCELLATIONS = {"gm": ((1000, 3000), (11100, 11176), (12100, 12176)), "wm": ((3000, 5003), (13100, 14176))}
SKIN, SOFT_TISSUE = 511, 507
#: Thickness in mm of the fat below the skin, which is added because label 507 contains both fat and muscle.
FAT = 4.0
#: Air in mm that is kept around the head, plus two voxels, if the map has so much.
MARGIN = 12.0


def make_head_from_labels(path: Path, spacing: Sequence[float], blur: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """One subject's head from a label map, its boundaries smoothed by about a voxel for partial volume.

    Args:
        path: NIfTI of integer labels, any orientation.
        spacing: voxel size of the result in mm along R, A and S.
        blur: standard deviation of the smoothing, in voxels of the result or of the map, whichever are larger.

    Returns:
        Tissue fractions of shape (len(TISSUES), X, Y, Z) and the 4x4 affine in mm; axes closest to R, A, S.
    """
    image = nib.as_closest_canonical(open_image(path))
    values = np.asarray(image.dataobj)
    if values.ndim != 3 or not np.array_equal(values, np.rint(values)):
        raise ValueError(f"{path}: shape {values.shape}, {values.dtype}; expected a 3-D volume of integer labels.")
    values = values.astype(np.int32)
    tissue = _map_labels_to_tissues(values, path)
    voxel = nib.affines.voxel_sizes(image.affine)

    half_width = np.rint(FAT / voxel).astype(int)
    near_skin = ndimage.maximum_filter((values == SKIN).astype(np.uint8), 2 * half_width + 1, mode="constant")
    tissue[(values == SOFT_TISSUE) & (near_skin > 0)] = TISSUES.index("fat")

    # Such maps have scattered unlabelled voxels in the CSF and the eyes, which would become air.
    csf = TISSUES.index("csf")
    tissue[(tissue == 0) & (ndimage.uniform_filter((tissue == csf).astype(np.float32), 5) > 0.4)] = csf

    ratio = np.asarray(spacing) / voxel
    shape = np.floor((np.array(values.shape) - 1) / ratio + 1e-6).astype(int) + 1
    (box,) = ndimage.find_objects((tissue > 0).astype(np.int8))
    head = np.array([(side.start, side.stop - 1) for side in box]).T
    first = np.maximum(np.floor((head[0] - MARGIN / voxel) / ratio) - 2, 0).astype(int)
    last = np.minimum(np.ceil((head[1] + MARGIN / voxel) / ratio) + 3, shape).astype(int)
    affine = image.affine @ np.diag([*ratio, 1.0])
    affine[:3, 3] += affine[:3, :3] @ first
    sigma = blur * np.maximum(ratio, 1)
    # Crop to the head: fractions are ten volumes, with hundreds of millions of voxels if voxels are small.
    fractions = np.zeros((len(TISSUES), *(last - first)), np.float32)
    for index in np.unique(tissue):
        share = ndimage.gaussian_filter((tissue == index).astype(np.float32), sigma, truncate=3)
        if np.allclose(ratio, 1, atol=1e-3):
            fractions[index] = share[tuple(map(slice, first, last))]
        else:
            ndimage.affine_transform(share, ratio, first * ratio, tuple(last - first), order=1, output=fractions[index])
    fractions /= fractions.sum(0)
    return fractions, affine


def _map_labels_to_tissues(values: np.ndarray, path: Path) -> np.ndarray:
    labels = np.unique(values)
    table = {label: TISSUES.index(name) for name, labels in LABELS.items() for label in labels}
    for name, ranges in PARCELLATIONS.items():
        table.update({label: TISSUES.index(name) for start, stop in ranges for label in range(start, stop)})
    unknown = [int(v) for v in labels if int(v) not in table]
    if unknown:
        raise ValueError(
            f"{path}: labels {unknown} are not known; expected FreeSurfer's aseg, aparc or wmparc labels, or "
            "SynthSeg's 500+ for the rest of the head. Relabel them, or add them to LABELS in data/labelmap.py."
        )
    tissues = np.array([table[int(v)] for v in labels], np.int8)
    return tissues[np.searchsorted(labels, values)]
