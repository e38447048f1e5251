"""4-D images: their volumes as files, and the volumes' results as one file."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.brikhead import AFNIImage

from ...io.files import format_json, get_sidecar_path, read_sidecar
from ...io.images import open_image, open_image_or_none
from ...io.naming import make_case_stem
from ...io.nifti_affines import make_image, read_encoding
from ...io.writing import write_atomically
from ..files import remove_file
from ..naming import list_companions, make_label_path, make_result_path

_TIMES = {nib.MGHImage: "msec", AFNIImage: "sec"}  # units of the fourth voxel size
_GRADIENTS = {".bval": 1, ".bvec": 3, ".bvals": 1, ".bvecs": 3}  # numbers a volume


def count_volumes(path: str | os.PathLike) -> int:
    """How many 3-D volumes an image has: the length of its fourth axis, if later axes have length 1; else 1."""
    image = open_image_or_none(path)  # faults of a file are reported when it is loaded
    shape = () if image is None else image.shape
    return int(shape[3]) if len(shape) > 3 and not set(shape[4:]) - {1} else 1


def split_volumes(path: str | os.PathLike, folder: str | os.PathLike) -> dict[str, float]:
    """Write each volume of a 4-D image as NIfTI, with the type of its voxels, and its sidecar JSON next to it.

    B-values or directions next to the image that do not fit its volumes cause a warning.
    Only one volume is in memory, except of NRRD and MetaImage, which are read as a whole.

    Args:
        path: an image with voxels ``(X, Y, Z, N)``, of a format that :func:`~common.io.images.open_image` reads.
        folder: for the files.

    Returns:
        The largest value of each of the N files, which have the name of the image and folders of their own.

    Raises:
        ValueError: when a volume is no magnitude image by its values, such as a component of vectors.
    """
    image = open_image(path)
    for table, problem in _check_gradients(path, image.shape[3]).items():
        if problem is not None:
            warnings.warn(f"{table}: {problem}; the result gets none. Correct it, or remove it.", stacklevel=2)
    voxels: Any = image.dataobj if isinstance(image.dataobj, ArrayProxy) else np.asanyarray(image.dataobj)
    brightness: dict[str, float] = {}
    for number in range(image.shape[3]):
        file = Path(folder, f"{number + 1:04d}", f"{make_case_stem(path)}.nii.gz")
        file.parent.mkdir(parents=True)
        volume = np.asanyarray(voxels[:, :, :, number]).reshape(image.shape[:3])
        low, high = float(volume.min()), float(volume.max())
        if low < -0.5 * abs(high):
            raise ValueError(
                f"{path}: volume {number + 1} of {image.shape[3]} holds {low:g} to {high:g}, as vectors, tensors, "
                "phases and statistics have; expected magnitude images. Leave it out, or set negative values to 0."
            )
        nib.save(make_image(volume, image.affine, image, read_encoding(image)), file)
        if get_sidecar_path(path).is_file() and read_sidecar(path)[1] is None:
            shutil.copyfile(get_sidecar_path(path), get_sidecar_path(file))
        brightness[str(file)] = high
    return brightness


def join_results(
    folder: str | os.PathLike,
    names: Sequence[str],
    source: str | os.PathLike,
    output_dir: str | os.PathLike,
    name: str,
    bids: bool = False,
) -> Path:
    """Join the results of the volumes of a 4-D image: images to 4-D images, JSON files to one, b-values unchanged.

    The joined JSON has what holds for all volumes, the sum of their ``Seconds``, and the rest as a list ``Volumes``.
    Of other files, such as reports and label maps, that of the first volume is kept.

    Args:
        folder: with the results.
        names: of the volumes' results, in the order of the volumes.
        source: the 4-D image. B-values and directions next to it, named like it, are copied if they fit the volumes.
        output_dir: folder of the joined results, or the file of the image.
        name: of the joined results.
        bids: whether they are named as BIDS derivatives.

    Returns:
        The path of the joined image.
    """
    path = make_result_path(output_dir, name, bids=bids)
    for file in list_companions(path):
        remove_file(file)  # of an earlier result
    firsts = sorted(Path(folder).glob(f"{names[0]}_*"), key=lambda file: file.name.endswith("_sr.nii.gz"))
    for first in firsts:
        rest = first.name.removeprefix(names[0])
        postfix, _, end = rest.removeprefix("_").partition(".")
        is_label = postfix == "sr_label"
        target = (
            make_label_path(output_dir, name, bids) if is_label else make_result_path(output_dir, name, postfix, bids)
        )
        files = [first.with_name(volume_name + rest) for volume_name in names]
        if end != "nii.gz":
            target = get_sidecar_path(target).with_suffix(f".{end}")
        with write_atomically(target) as temporary:
            if end == "nii.gz" and not is_label:
                _join_images(files, open_image(source), temporary)
            elif end == "json":
                descriptions = [json.loads(file.read_text(encoding="utf-8")) for file in files]
                temporary.write_text(format_json(_join_descriptions(descriptions), indent=2) + "\n", encoding="utf-8")
            else:
                shutil.copyfile(first, temporary)
    tables = _check_gradients(source, len(names))
    for end in _GRADIENTS:
        target, table = (get_sidecar_path(each).with_suffix(end) for each in (path, source))
        if table in tables and tables[table] is None:
            with write_atomically(target) as temporary:
                shutil.copyfile(table, temporary)
        else:
            remove_file(target)  # of an earlier result
    return path


def _check_gradients(path: str | os.PathLike, count: int) -> dict[Path, str | None]:
    """The tables of b-values and directions next to a 4-D image, and why one does not fit its volumes."""
    problems: dict[Path, str | None] = {}
    for end, numbers in _GRADIENTS.items():
        if not (table := get_sidecar_path(path).with_suffix(end)).is_file():
            continue
        try:
            rows = [
                line.split() for line in table.read_text("utf-8-sig").replace(",", " ").splitlines() if line.strip()
            ]
            widths = [len([*map(float, row)]) for row in rows]
        except (OSError, ValueError) as error:
            problems[table] = f"it cannot be read ({error}), expected {numbers} numbers for each of {count} volumes"
            continue
        fits = widths in ([count] * numbers, [numbers] * count)
        found = f"found {len(widths)} rows of {' or '.join(map(str, sorted(set(widths)))) or 0} numbers"
        problems[table] = None if fits else f"{found}, expected {numbers} for each of {count} volumes"
    return problems


def _join_images(files: Sequence[Path], source: Any, path: Path) -> None:
    """Write 3-D NIfTI files of one grid as a 4-D one, with the time step of its source."""
    images: Any = [nib.load(file) for file in files]
    encodings = {read_encoding(image) for image in images}
    # Volumes that are scaled differently become floats.
    dtype = np.result_type(*(image.get_data_dtype() if len(encodings) == 1 else np.float32 for image in images))
    first = images[0]
    # On disk, because all volumes may be more than the memory holds.
    stored = files[0].with_name(f"{files[0].name}.voxels")
    voxels = np.memmap(stored, dtype, "w+", shape=(*first.shape, len(files)), order="F")
    for number, image in enumerate(images):
        # The integers themselves, if all volumes are scaled alike.
        voxels[..., number] = image.dataobj.get_unscaled() if len(encodings) == 1 else np.asanyarray(image.dataobj)
    image = type(first)(voxels, None, first.header, dtype=dtype)
    if len(encodings) == 1 and (encoding := read_encoding(first)):
        image.header.set_slope_inter(encoding.slope, encoding.intercept)
    if unit := _TIMES.get(type(source)):
        image.header.set_xyzt_units("mm", unit)
        image.header["pixdim"][4] = source.header.get_zooms()[3]
    nib.save(image, path)
    stored.unlink()


def _join_descriptions(descriptions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON of several volumes as one. That of an error bar is the same for all."""
    if "SuperResolution" not in descriptions[0]:
        return dict(descriptions[0])
    records = [one["SuperResolution"] for one in descriptions]
    keys = list(dict.fromkeys(key for one in records for key in one))
    # Only the first volume has a label map among its inputs.
    same = [key for key in keys if key == "Inputs" or all(one.get(key) == records[0].get(key) for one in records)]
    return {
        **descriptions[0],
        "SuperResolution": {
            **{key: records[0][key] for key in same},
            "Seconds": round(sum(one["Seconds"] for one in records), 3),
            "Volumes": [{key: one[key] for key in keys if key in one and key not in same} for one in records],
        },
    }
