"""One transform that loads a scan, against the chain of which it is made."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from common.transforms import CheckVoxelsd, LoadScand, NormaliseVolumed, SliceAxisd
from tests.bundles import runs
from tests.refused import has, refused
from tests.transforms.grids import warned


@pytest.fixture
def scan(tmp_path):
    return str(runs.save(tmp_path / "scan.nii.gz", runs.phantom(0, (12, 14, 9)), runs.OBLIQUE, np.int16, "SRA"))


@pytest.mark.parametrize(("ordered", "normalise"), [(True, True), (True, False), (False, True)])
def test_it_is_the_chain(scan, ordered, normalise):
    """Voxels, affine and what restores them; a volume that a client has loaded already gives the same."""
    read = [LoadImaged("image", image_only=True)]  # by MONAI's reader, which agrees where a header does with itself
    chain = [EnsureChannelFirstd("image", channel_dim="no_channel"), CheckVoxelsd("image")]
    chain += [SliceAxisd("image", "LR")] * ordered + [NormaliseVolumed("image")] * normalise
    expected = Compose(read + chain)({"image": scan})["image"]
    load = LoadScand("image", "LR", ordered, normalise)
    for given in (scan, Compose(read)({"image": scan})["image"]):
        found = load({"image": given})["image"]
        assert torch.equal(found.as_tensor(), expected.as_tensor()) and torch.equal(found.affine, expected.affine)
        for key in ("slice_orientation", "intensity_range"):
            assert (key in found.meta) == (key in expected.meta)
            assert key not in found.meta or torch.equal(found.meta[key], expected.meta[key])


def test_what_float32_does_not_hold_is_set_aside(tmp_path):
    voxels = runs.phantom(0, (20, 20, 20)).astype(np.float64)
    voxels[3, 3, 3] = 1e300
    path = runs.save(tmp_path / "a.nii.gz", voxels, np.eye(4), np.float64)
    _, messages = warned(lambda: LoadScand("image", "SI")({"image": path}))
    has(str(messages), "a.nii.gz: 1 of 8000 voxels are beyond", "float32", "rest", "1 of 3.4")


def test_a_missing_file_and_no_axis_are_refused_by_the_files_name_and_a_key_may_lack_where_that_is_said(scan):
    refused(lambda: LoadScand("image")({"image": "none.nii"}), FileNotFoundError, "none.nii")
    with pytest.raises(RuntimeError) as caught:
        LoadScand("image", None)({"image": scan})
    assert "scan.nii.gz: slice_axis is None, expected one of" in str(runs.first_cause(caught.value))
    assert LoadScand(["image", "guide"], "SI", allow_missing_keys=True)({"image": scan}).keys() == {"image"}
