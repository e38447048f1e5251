"""``python -m common label``: bring a label map to the grid of a scan or of a result."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from ...geometry.labels import resample_labels
from ...io.images import open_image
from ...io.read import check_affine
from ...io.writing import check_writable
from ..cases.case import Case
from ..exams.owners import identify_owner, warn_of_another_visit
from ..exams.people import make_owner
from ..labels import check_overlap, read_labels, write_labels


def transfer_labels(label_map: str, reference: str, output: str) -> None:
    """Bring a label map to the grid of another image in the same space: from a result back to its scan, or the reverse.

    Each voxel gets the label with the greatest share of its volume.

    Args:
        label_map: the label map: whole numbers, in NIfTI or another format that is read.
        reference: image whose grid the labels get, such as the scan.
        output: file for the labels; its name ends in .nii.gz or .nii.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when a file cannot be read, the label map is of another person, holds other values than labels or
            lies elsewhere, or output would be written over an input or does not end so.
    """
    path = Path(output).expanduser()
    if not path.name.endswith((".nii.gz", ".nii")):
        raise ValueError(f"--output is {output}, expected a name that ends in .nii.gz or .nii.")
    if os.path.realpath(path) in map(os.path.realpath, (label_map, reference)):
        raise ValueError(f"--output {output}: that would be written over an input; name another file.")
    check_writable(path.parent)
    case = Case({"image": reference})
    warn_of_another_visit(case, identify_owner(case), make_owner(label_map, None, f"the label map {label_map}"))
    if case.problem is not None:
        raise ValueError(case.problem)
    for warning in case.warnings:
        warnings.warn(warning, stacklevel=2)
    grid = open_image(reference)
    check_affine(reference, grid.affine)
    labels = read_labels(label_map)
    size, affine, target = grid.shape[:3], open_image(label_map).affine, np.asarray(grid.affine, np.float64)
    check_overlap(label_map, labels, affine, size, target)
    write_labels(path, resample_labels(labels, affine, size, target), target, grid, f"labels of {Path(label_map).name}")
    print(f"{label_map} on the grid of {reference} -> {path}", flush=True)
