"""Which axis of a file runs across its slices."""

import json

import nibabel as nib
import numpy as np

from common.io.files import read_sidecar
from common.io.slice_axis import read_slice_axis
from common.transforms import LoadScand

UNCLEAR, CLEAR = (0.7, 1.4, 2.7), (0.7, 0.7, 2.7)


def scan(path, spacing, header=None, sidecar=None):
    image = nib.Nifti1Image(np.random.default_rng(0).random((6, 7, 8), np.float32), np.diag([*spacing, 1.0]))
    if header is not None:
        image.header.set_dim_info(slice=header)
    nib.save(image, path)
    path.with_suffix(".json").write_text(json.dumps({"SliceEncodingDirection": sidecar}))
    return path


def test_the_sidecar_decides_and_the_header_where_spacing_shows_nothing(tmp_path):
    for spacing, header, sidecar, across in (
        (UNCLEAR, None, None, None),
        (UNCLEAR, 1, None, 1),
        (CLEAR, 1, None, None),  # of a volume that was turned since
        (CLEAR, 1, "i-", 0),
        (UNCLEAR, 1, "k", 2),
        (UNCLEAR, 1, "z", 1),
    ):
        path = scan(tmp_path / "a.nii", spacing, header, sidecar)
        assert read_slice_axis(path) == across, (spacing, header, sidecar)
        assert ("expected i, j or k" in (read_sidecar(path)[1] or "")) == (sidecar == "z")
        if across is not None and sidecar != "z":
            ordered = LoadScand("image")({"image": str(path)})["image"]
            assert ordered.shape[3] == (6, 7, 8)[across]


def test_an_axis_for_each_file(tmp_path):
    path = str(scan(tmp_path / "a.nii", CLEAR, sidecar="k"))
    assert LoadScand("image")({"image": path, "slice_axes": {path: "AP"}})["image"].shape == (1, 6, 8, 7)
