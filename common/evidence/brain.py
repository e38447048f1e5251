"""Segment the brain and its tissues in volumes of any MR contrast."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from scipy import ndimage

#: The tissues, by their labels.
TISSUES = {1: "csf", 2: "grey matter", 3: "white matter"}
_BETA = 0.1  # weight of neighbours against brightness, as in DIPY's example of T1w heads
_ITERATIONS = 10  # more change volumes by less than 1 %
_TOP = 0.999  # quantile of the brain that becomes 1
_LEAST = 1e-3  # of it: 0 is what lies outside
_OUTER = 3.0  # mm from the border of the brain, where CSF is most frequent


def check_segmentation() -> None:
    """Check before work begins that the packages are there."""
    for package in ("deepbet", "dipy"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"{package} is not installed, which segments the brain; install the extra: pip install '.[judge]', or "
                "give your own segmentation with --labels."
            )


def segment_brain(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Find the brain, with the CSF around it, by the network of deepbet.

    Args:
        voxels: ``(X, Y, Z)`` of a head of any contrast, with or without skull.
        affine: 4x4, in mm.

    Returns:
        Mask ``(X, Y, Z)``.

    Raises:
        ModuleNotFoundError: deepbet is not installed.
        ValueError: it finds no brain.

    Source:
        Fisch et al., deepbet: Fast brain extraction of T1-weighted MRI using Convolutional Neural Networks, Computers
        in Biology and Medicine 179, 2024.
    """
    check_segmentation()
    from deepbet import BrainExtraction

    try:
        mask = BrainExtraction(no_gpu=True).run(nib.Nifti1Image(voxels.astype(np.float32), affine))[1]
    except (AssertionError, ValueError) as error:  # of its box around nothing
        raise ValueError(f"deepbet finds no brain ({error}); expected a whole head, or give --labels.") from None
    return np.asarray(mask.dataobj) > 0


def classify_brightness(voxels: np.ndarray, brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide the brain into three classes of brightness, by a hidden Markov random field.

    A voxel at a border belongs to several classes in part. Sizes count the parts, so blur and noise change them less
    than they change the numbers of voxels.

    Args:
        voxels: ``(X, Y, Z)``, any units.
        brain: mask of the same shape.

    Returns:
        Classes ``(X, Y, Z)``: 1 for the darkest to 3 for the brightest, 0 outside of the brain. Sizes of the classes in
        voxels, (3,).

    Raises:
        ModuleNotFoundError: DIPY is not installed.

    Source:
        Zhang et al., Segmentation of brain MR images through a hidden Markov random field model and the
        expectation-maximization algorithm, IEEE Transactions on Medical Imaging 20(1), 2001.
    """
    check_segmentation()
    from dipy.segment.tissue import TissueClassifierHMRF

    (box,) = ndimage.find_objects(np.pad(brain, 1).astype(np.uint8))  # with a voxel of margin, in the padded volume
    box = tuple(slice(side.start - 1, side.stop + 1) for side in box)
    inside, values = np.pad(brain, 1)[box], np.pad(voxels, 1)[box].astype(np.float64)
    scaled = np.where(inside, (values / np.quantile(values[inside], _TOP)).clip(_LEAST, 1), 0)
    state = np.random.get_state()
    np.random.seed(0)  # DIPY draws noise for what lies outside
    try:
        classifier = TissueClassifierHMRF(verbose=False)
        _, found, parts = classifier.classify(scaled, len(TISSUES), _BETA, max_iter=_ITERATIONS)
    finally:
        np.random.set_state(state)
    classes = np.zeros(np.add(brain.shape, 2), np.uint8)
    classes[box] = np.where(inside, found.clip(1), 0)
    sizes = parts[inside].sum(axis=0, dtype=np.float64)
    sizes[0] += inside.sum() - sizes.sum()  # the darkest voxels have parts of what lies outside
    return classes[1:-1, 1:-1, 1:-1], sizes


def order_tissues(classes: np.ndarray, affine: np.ndarray) -> tuple[int, ...]:
    """Tell which class is which tissue by where it lies: CSF is most frequent at the border, white matter lies deepest.

    So it holds for T1w, T2w and FLAIR.

    Args:
        classes: ``(X, Y, Z)``, 1 to 3 in the brain, 0 outside.
        affine: 4x4, in mm.

    Returns:
        The classes of CSF, grey matter and white matter.
    """
    spacing = voxel_sizes(affine)
    depth = ndimage.distance_transform_edt(np.pad(classes > 0, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    numbers = list(TISSUES)
    white = max(numbers, key=lambda n: np.median(depth[classes == n]) if (classes == n).any() else 0)
    outer = np.bincount(classes[(depth > 0) & (depth <= max(_OUTER, spacing.min()))], minlength=4)
    numbers.remove(white)
    csf = max(numbers, key=lambda n: outer[n])
    numbers.remove(csf)
    return csf, *numbers, white


def name_tissues(classes: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """The labels of :data:`TISSUES`, from classes of brightness and their order (:func:`order_tissues`)."""
    of_class = np.zeros(len(TISSUES) + 1, np.uint8)
    of_class[list(order)] = list(TISSUES)
    return of_class[classes]
