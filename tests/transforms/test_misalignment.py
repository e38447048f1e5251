"""Misalignment by what happens to landmarks of the subject in world space."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy.spatial.transform import Rotation

from common.transforms import RandMisalignd
from tests.refused import refused
from tests.transforms.grids import affine_of, along, centre_of_mass, scan_of, world_of

SIZE, SPACING = (44, 48, 40), (1.1, 0.9, 1.3)  # L-R, A-P, H-F
CENTRE = np.array([5.0, -30.0, 12.0])
# World coordinates in mm, about the centre of the volume: on every axis, and away from the border.
LANDMARKS = np.array([[0, 0, 0], [13, 0, 0], [-13, 0, 0], [0, 13, 0], [0, -13, 0], [0, 0, 14], [0, 0, -14.0]])
NOTHING = {"rotation": (0, 0), "translation": (0, 0), "shrink": (0, 0)}


def subject(codes, landmark, tilt=0.0):
    size = along(codes, SIZE)
    affine = affine_of(codes, along(codes, SPACING), (tilt, -tilt, tilt / 2), CENTRE, size)
    distance = np.linalg.norm(world_of(affine, size) - CENTRE - landmark, axis=-1)
    return scan_of(np.exp(-(distance**2) / (2 * 2.0**2)), affine)


def position(volume):
    return centre_of_mass(volume.numpy()[0], volume.affine) - CENTRE


def moved(transform, volume, seed=0):
    return transform.set_random_state(seed)({"hr": volume})["hr"]


def moved_landmarks(codes="RAS", seed=0, tilt=0.0, **ranges):
    """How the landmarks move, which is as the world matrix says."""
    transform = RandMisalignd("hr", **ranges)
    volumes = [subject(codes, landmark, tilt) for landmark in LANDMARKS]
    before = np.array([position(v) for v in volumes])
    after = np.array([position(moved(transform, v, seed)) for v in volumes])
    matrix = transform.compute_world_matrix(volumes[0].affine, volumes[0].shape[1:])
    np.testing.assert_allclose(after + CENTRE, (before + CENTRE) @ matrix[:3, :3].T + matrix[:3, 3], atol=5e-3)
    return after - before


def test_the_same_subject_moves_the_same_way_however_it_is_stored():
    for seed in (0, 1):
        expected = moved_landmarks("RAS", seed)
        assert np.abs(expected).max() > 0.3
        for codes, tilt in (("LPS", 0), ("PIR", 0), ("ASL", 0), ("SRA", 0), ("RAS", 12), ("PIR", 12)):
            np.testing.assert_allclose(moved_landmarks(codes, seed, tilt), expected, atol=5e-3 if tilt else 2e-3)


def test_the_axis_of_a_rotation_stays():
    transform = RandMisalignd("hr", **{**NOTHING, "rotation": (2, 2)})
    for seed in range(4):
        transform.set_random_state(seed).randomize()
        assert sorted(np.abs(transform.degrees)) == [0, 2, 2] and transform.degrees[1] == 0
    # A draw turns about both axes at once; one at a time shows which is which.
    for axis, on_axis, across in [(2, [5, 6], [1, 2, 3, 4]), (0, [1, 2], [3, 4, 5, 6])]:
        transform.degrees[:] = 2.0 * np.eye(3)[axis]
        shifts = np.array([position(transform.misalign(subject("PIR", p))) - p for p in LANDMARKS])
        assert np.abs(shifts[on_axis]).max() < 1e-3, "points on the axis stay"
        turned = Rotation.from_rotvec(transform.degrees, degrees=True).apply(LANDMARKS) - LANDMARKS
        np.testing.assert_allclose(shifts[across], turned[across], atol=2e-3)


@pytest.mark.parametrize("codes", ["RAS", "PIR"])
def test_translation_is_in_voxels_along_hf_and_lr_and_shrinking_along_ap_and_lr(codes):
    shifts = moved_landmarks(codes, **{**NOTHING, "translation": (1.5, 1.5)})
    np.testing.assert_allclose(np.abs(shifts), np.tile([1.5 * 1.1, 0, 1.5 * 1.3], (7, 1)), atol=2e-3)
    after = LANDMARKS + moved_landmarks(codes, **{**NOTHING, "shrink": (2, 2)})
    distance = np.linalg.norm(after[1::2] - after[2::2], axis=1)
    np.testing.assert_allclose(distance, [26 * 42 / 44, 26 * 46 / 48, 28], atol=3e-3)
    np.testing.assert_allclose(after[0], 0, atol=1e-3, err_msg="the centre of the volume stays")


def test_directions_go_either_way():
    transform, draws = RandMisalignd("hr"), []
    for seed in range(200):
        transform.set_random_state(seed).randomize()
        draws.append([*transform.degrees[[0, 2]], *transform.shift_voxels[[0, 2]], *transform.shrink_voxels[[0, 1]]])
    positive, sizes = (np.array(draws) > 0).mean(axis=0), np.abs(draws)
    assert sizes.max() <= 2 and sizes.max(axis=0).min() > 1.8
    assert np.all(np.abs(positive[:4] - 0.5) < 0.15) and np.all(positive[4:] == 1)
    assert np.abs(np.corrcoef(sizes.T) - np.eye(6)).max() < 0.3, "magnitudes are drawn independently"


def test_grid_dtype_range_and_input_are_kept_and_what_enters_the_volume_repeats_its_border():
    volume = MetaTensor((torch.rand(1, 16, 16, 16) > 0.5).half(), affine=subject("LPS", LANDMARKS[0]).affine)
    before = volume.clone()
    after = moved(RandMisalignd("hr"), volume)
    assert after.dtype == torch.float16 and after.shape == volume.shape
    assert after.min() >= 0 and after.max() <= 1, "splines overshoot, magnitudes must not"
    assert torch.equal(after.affine, volume.affine) and after.meta.keys() == volume.meta.keys()
    assert torch.equal(volume, before) and not torch.equal(after, before)
    volume = MetaTensor(torch.rand(2, 9, 10, 11), affine=subject("PIR", LANDMARKS[0]).affine)
    after = moved(RandMisalignd("hr", **NOTHING), volume)
    torch.testing.assert_close(after.as_tensor(), volume.as_tensor(), atol=2e-6, rtol=0)
    volume = torch.full((1, 25, 25, 25), 0.4)
    volume[0, 12, 12, 12] = 0.0  # far from the border, and dark, so that clipping to the range hides nothing
    after = moved(RandMisalignd("hr", translation=(2, 2)), MetaTensor(volume)).as_tensor()[0]
    for axis in range(3):
        faces = after.index_select(axis, torch.tensor([0, 24]))
        torch.testing.assert_close(faces, torch.full_like(faces, 0.4), atol=1e-4, rtol=0)


def test_keys_move_together_and_seeds_repeat():
    image = subject("RAS", LANDMARKS[1])
    data = {"hr": image, "mask": image.clone(), "name": "a"}
    pipeline = Compose([RandMisalignd(["hr", "mask"])]).set_random_state(5)
    first = pipeline(data)
    assert torch.equal(first["hr"], first["mask"]) and first["name"] == "a" and data["hr"] is image
    assert not torch.equal(first["hr"], pipeline(data)["hr"]), "each call draws anew"
    assert torch.equal(pipeline.set_random_state(5)(data)["hr"], first["hr"])


def test_refused():
    for name, pair in (("rotation", (2, 0)), ("translation", (-1, 1)), ("shrink", (1,))):
        refused(lambda ranges={name: pair}: RandMisalignd("hr", **ranges), ValueError, name, pair)
