"""Volumes that cannot be used."""

import gzip
import re

import nibabel as nib
import numpy as np

from . import runs


def spoil(folder, volume, contrast):
    """Write volumes that cannot be used, of one subject each. Returns their paths, and what must be said of each."""

    def image(array, affine=runs.AFFINE):
        header = nib.Nifti1Header()
        header.set_data_shape(array.shape)
        header.set_data_dtype(array.dtype)
        header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
        header["sform_code"] = 1
        return nib.Nifti1Image(array, None, header)

    holes, blown, few = volume.astype(np.float32), volume.astype(np.float32), volume[:, :, :2].astype(np.float32)
    x, y, z = (n // 2 for n in volume.shape)
    holes[x, y, z] = np.nan
    blown[x : x + 2, y, z] = np.inf
    colour = np.zeros(volume.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    images = {
        "flat": (image(volume[..., 0].astype(np.float32)), "expected a 3-D volume"),
        "single": (image(volume[..., :1].astype(np.float32)), "expected a 3-D volume"),
        "series": (image(np.stack([volume] * 2, axis=-1).astype(np.float32)), "3-D volume; take out a volume"),
        "colour": (image(colour), "not colour"),
        "nan": (image(holes), "1 of .* voxels are NaN or infinite, 1 of them in tissue"),
        "infinite": (image(blown), "2 of .* voxels are NaN or infinite, 2 of them in tissue"),
        "constant": (image(np.full(volume.shape, 7, np.int16)), "every voxel is 7"),
        "thin": (image(few), "fewer than a slab: 3 on each axis"),
        "singular": (image(volume.astype(np.float32), np.diag([1, 1, 0, 1])), "not invertible.*sform or qform"),
    }
    patterns = {}
    folder.mkdir(exist_ok=True)
    for name, (found, pattern) in images.items():
        path = folder / f"sub-{name}_{contrast}.nii.gz"
        nib.save(found, path)
        patterns[path] = pattern
    whole = gzip.compress(image(volume.astype(np.float32)).to_bytes())
    truncated, text = (folder / f"sub-{name}_{contrast}.nii.gz" for name in ("truncated", "text"))
    truncated.write_bytes(whole[: len(whole) // 2])
    text.write_text("no image")
    patterns[truncated] = "the file is damaged, get a whole copy"
    patterns[text] = "not a readable image.*get a whole copy"
    return patterns


def said(message, patterns):
    """Whether each file has a line that names it and says what is wrong."""
    for path, pattern in patterns.items():
        assert re.search(rf"{re.escape(path.name)}: .*{pattern}", message), f"nothing on {path.name} in:\n{message}"
