"""Stacks that are made of HR volumes lie where they should, and results come back to the grid of HR."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms import MakeStacksd, ResampleToReferenced

AFFINE = np.array([[1.2, 0, 0, -20], [0, 1.0, 0, 7], [0, 0, 1.5, 3], [0, 0, 0, 1.0]])


def ramp(shape, affine, direction):
    """A volume whose values are positions in mm along a direction."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    values = (index @ affine[:3, :3].T + affine[:3, 3]) @ direction
    return MetaTensor(torch.from_numpy(values).float()[None], affine=affine, meta={"filename_or_obj": "a.nii.gz"})


@pytest.mark.parametrize(("axis", "across"), [("LR", 0), ("AP", 1), ("SI", 2)])
def test_stacks_lie_on_their_volume(axis, across):
    """Slices last; within the volume a stack of a ramp is the ramp at its own voxels."""
    direction = np.array([0.3, -0.2, 0.5])
    entry = {"hr": ramp((24, 26, 25), AFFINE, direction), "guide": ramp((24, 26, 25), AFFINE, -direction)}
    made = MakeStacksd(["hr", "guide", "ct"], [[], [axis], ["LR"]], 4)(entry)
    assert made["stacks"] == [] and len(made["contrasts"]) == 1
    (stack,) = made["contrasts"][0]
    affine = np.asarray(stack.affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    assert spacing[2] == pytest.approx(4 * AFFINE[across, across]) and np.argmax(np.abs(affine[:3, 2])) == across
    expected = ramp(stack.shape[1:], affine, -direction)
    inner = (0, *(slice(1, -1),) * 3)
    torch.testing.assert_close(stack.as_tensor()[inner], expected.as_tensor()[inner], atol=1e-3, rtol=0)


def test_each_stack_has_a_name_of_its_own():
    entry = {"hr": ramp((16, 16, 16), AFFINE, np.ones(3))}
    made = MakeStacksd(["hr", "guide"], [["LR", "AP"], ["SI"]], 4)(entry)
    names = {stack.meta["filename_or_obj"] for stack in made["stacks"]}
    assert len(names) == 2 and "a.nii.gz" not in names and made["contrasts"] == []


def test_a_result_on_other_axes_comes_to_the_grid_of_hr():
    direction = np.array([0.3, -0.2, 0.5])
    turned = AFFINE[:, [2, 0, 1, 3]] @ np.diag([0.5, 1, 1, 1])
    hr = ramp((12, 13, 14), AFFINE, direction)
    result = ramp((28, 12, 13), turned, direction)
    moved = ResampleToReferenced("pred", "label")({"pred": result, "label": hr})["pred"]
    np.testing.assert_allclose(np.asarray(moved.affine), AFFINE)
    inner = (0, *(slice(1, -1),) * 3)
    torch.testing.assert_close(moved.as_tensor()[inner], hr.as_tensor()[inner], atol=0.02, rtol=0)
    far = MetaTensor(hr.as_tensor(), affine=AFFINE + np.pad([[900.0]] * 3, ((0, 1), (3, 0))))
    with pytest.raises(ValueError, match="label: its grid lies outside"):
        ResampleToReferenced("pred", "label")({"pred": result, "label": far})
