"""Misalignment by what happens to landmarks of the subject in world space."""

import doctest

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy.spatial.transform import Rotation

from common.transforms.registration import misalignment
from common.transforms.registration.misalignment import RandMisalign, RandMisalignd

SIZE = (44, 48, 40)  # L-R, A-P, H-F
SPACING = (1.1, 0.9, 1.3)
# World coordinates in mm, about the centre of the volume: on every axis, and away from the border.
LANDMARKS = np.array(
    [[0, 0, 0], [13, 0, 0], [-13, 0, 0], [0, 13, 0], [0, -13, 0], [0, 0, 14], [0, 0, -14]], dtype=float
)


def subject(codes, landmark, tilt=0.0):
    """One blob at a point of the subject, stored with the given axis codes."""
    ornt = nib.orientations.axcodes2ornt(codes)
    axes, signs = ornt[:, 0].astype(int), ornt[:, 1]
    size = np.array(SIZE)[axes]
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[axes, range(3)] = signs * np.array(SPACING)[axes]
    affine[:3, :3] = Rotation.from_euler("xyz", [tilt, -tilt, tilt / 2], degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ ((size - 1) / 2) + (5.0, -30.0, 12.0)
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3] - (5.0, -30.0, 12.0)
    blob = np.exp(-((world - landmark) ** 2).sum(-1) / (2 * 2.0**2))
    return MetaTensor(torch.from_numpy(blob)[None], affine=affine)


def position(volume):
    """Centre of mass in world coordinates about the centre of the volume."""
    weight = volume.numpy()[0]
    index = np.stack(np.meshgrid(*map(np.arange, weight.shape), indexing="ij"), axis=-1)
    voxel = (index * weight[..., None]).sum((0, 1, 2)) / weight.sum()
    affine = volume.affine.numpy()
    return affine[:3, :3] @ voxel + affine[:3, 3] - (5.0, -30.0, 12.0)


def moved_landmarks(codes="RAS", seed=0, tilt=0.0, landmarks=LANDMARKS, **ranges):
    transform = RandMisalign(**ranges)
    return np.array(
        [
            position(transform.set_random_state(seed)(subject(codes, p, tilt))) - position(subject(codes, p, tilt))
            for p in landmarks
        ]
    )


NOTHING = {"rotation": (0, 0), "translation": (0, 0), "shrink": (0, 0)}


@pytest.mark.parametrize("codes", ["LPS", "PIR", "ASL", "SRA"])
def test_the_same_subject_moves_the_same_way_however_it_is_stored(codes):
    for seed in (0, 1):
        reference = moved_landmarks("RAS", seed)
        assert np.abs(reference).max() > 0.3
        np.testing.assert_allclose(moved_landmarks(codes, seed), reference, atol=2e-3)


def test_oblique_storage_moves_the_same_way():
    np.testing.assert_allclose(moved_landmarks("RAS", tilt=12.0), moved_landmarks("RAS"), atol=5e-3)
    np.testing.assert_allclose(moved_landmarks("PIR", tilt=12.0), moved_landmarks("RAS"), atol=5e-3)


def test_nothing_drawn_is_the_identity():
    volume = MetaTensor(torch.rand(2, 9, 10, 11), affine=subject("PIR", LANDMARKS[0]).affine)
    torch.testing.assert_close(RandMisalign(**NOTHING)(volume).as_tensor(), volume.as_tensor(), atol=2e-6, rtol=0)


def test_the_axis_of_a_rotation_stays():
    transform = RandMisalign(**{**NOTHING, "rotation": (2, 2)})
    for seed in range(4):
        transform.set_random_state(seed).randomize()
        assert sorted(np.abs(transform.degrees)) == [0, 2, 2] and transform.degrees[1] == 0
    # A draw turns about both axes at once; one at a time shows which is which.
    for axis, along, across in [(2, [5, 6], [1, 2, 3, 4]), (0, [1, 2], [3, 4, 5, 6])]:
        transform.degrees[:] = 0
        transform.degrees[axis] = 2.0
        moved = np.array([position(transform(subject("PIR", p), randomize=False)) - p for p in LANDMARKS])
        assert np.abs(moved[along]).max() < 1e-3, "points on the axis stay"
        turned = Rotation.from_rotvec(np.deg2rad(2.0) * np.eye(3)[axis]).apply(LANDMARKS) - LANDMARKS
        np.testing.assert_allclose(moved[across], turned[across], atol=2e-3)


def test_translation_is_in_voxels_along_hf_and_lr():
    for codes in ("RAS", "PIR"):
        moved = moved_landmarks(codes, **{**NOTHING, "translation": (1.5, 1.5)})
        np.testing.assert_allclose(np.abs(moved), np.tile([1.5 * SPACING[0], 0, 1.5 * SPACING[2]], (7, 1)), atol=2e-3)


def test_directions_go_either_way():
    transform = RandMisalign()
    draws = []
    for seed in range(200):
        transform.set_random_state(seed).randomize()
        draws.append([*transform.degrees[[0, 2]], *transform.shift_voxels[[0, 2]], *transform.shrink_voxels[[0, 1]]])
    draws = np.array(draws)
    assert np.abs(draws).max() <= 2 and np.abs(draws).max(axis=0).min() > 1.8
    share_positive = (draws > 0).mean(axis=0)
    assert np.all(np.abs(share_positive[:4] - 0.5) < 0.15) and np.all(share_positive[4:] == 1)
    correlation = np.corrcoef(np.abs(draws).T) - np.eye(6)
    assert np.abs(correlation).max() < 0.3, "magnitudes are drawn independently"


@pytest.mark.parametrize("codes", ["RAS", "PIR"])
def test_shrinking_brings_a_pair_of_blobs_together(codes):
    moved = moved_landmarks(codes, **{**NOTHING, "shrink": (2, 2)})
    after = LANDMARKS + moved
    distance = np.linalg.norm(after[1::2] - after[2::2], axis=1)
    expected = [26 * (SIZE[0] - 2) / SIZE[0], 26 * (SIZE[1] - 2) / SIZE[1], 28]
    np.testing.assert_allclose(distance, expected, atol=3e-3)
    np.testing.assert_allclose(after[0], 0, atol=1e-3, err_msg="the centre of the volume stays")


def test_world_matrix_says_where_landmarks_go():
    transform = RandMisalign()
    for seed in (3, 4):
        transform.set_random_state(seed)
        volume = subject("ASL", LANDMARKS[3], tilt=8.0)
        moved = transform(volume)
        matrix = transform.world_matrix(volume.affine, volume.shape[1:])
        offset = np.array([5.0, -30.0, 12.0])
        np.testing.assert_allclose(
            position(moved) + offset, matrix[:3, :3] @ (LANDMARKS[3] + offset) + matrix[:3, 3], atol=5e-3
        )


def test_grid_dtype_range_and_input_are_kept():
    volume = MetaTensor((torch.rand(1, 16, 16, 16) > 0.5).half(), affine=subject("LPS", LANDMARKS[0]).affine)
    before = volume.clone()
    moved = RandMisalign().set_random_state(0)(volume)
    assert moved.dtype == torch.float16 and moved.shape == volume.shape
    assert moved.min() >= 0 and moved.max() <= 1, "splines overshoot, magnitudes must not"
    assert torch.equal(moved.affine, volume.affine) and moved.meta.keys() == volume.meta.keys()
    assert torch.equal(volume, before) and not torch.equal(moved, before)


def test_what_enters_the_volume_repeats_its_border():
    volume = torch.full((1, 25, 25, 25), 0.4)
    volume[0, 12, 12, 12] = 0.0  # far from the border, and dark, so that clipping to the range hides nothing
    moved = RandMisalign(translation=(2, 2)).set_random_state(0)(MetaTensor(volume)).as_tensor()[0]
    for axis in range(3):
        for face in (0, -1):
            torch.testing.assert_close(moved.select(axis, face), torch.full((25, 25), 0.4), atol=1e-4, rtol=0)


def test_keys_move_together_and_seeds_repeat():
    image = subject("RAS", LANDMARKS[1])
    data = {"hr": image, "mask": image.clone(), "name": "a"}
    pipeline = Compose([RandMisalignd(keys=["hr", "mask"])])
    first = pipeline.set_random_state(5)(data)
    assert torch.equal(first["hr"], first["mask"]) and first["name"] == "a" and data["hr"] is image
    second = pipeline(data)
    assert not torch.equal(first["hr"], second["hr"]), "each call draws anew"
    assert torch.equal(pipeline.set_random_state(5)(data)["hr"], first["hr"])


def test_wrong_input():
    with pytest.raises(TypeError, match="LoadImage"):
        RandMisalign()(torch.rand(1, 8, 8, 8))
    with pytest.raises(ValueError, match="EnsureChannelFirst"):
        RandMisalign()(MetaTensor(torch.rand(8, 8, 8)))
    with pytest.raises(ValueError, match="invertible affine"):
        RandMisalign()(MetaTensor(torch.rand(1, 8, 8, 8), affine=np.diag([1.0, 1.0, 0.0, 1.0])))
    with pytest.raises(ValueError, match="cannot shrink"):
        RandMisalign(shrink=(2, 2))(MetaTensor(torch.rand(1, 2, 8, 8)))
    for wrong in ((2, 0), (-1, 1), (1,)):
        with pytest.raises(ValueError, match="rotation must be a range"):
            RandMisalign(rotation=wrong)


def test_docstring_examples():
    assert doctest.testmod(misalignment).failed == 0
