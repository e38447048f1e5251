"""Lesions that are put into volumes are where and as strong as it says."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from common.lab.judge.insertion import insert_lesions
from common.program.volume import Volume

SPACING = np.array([1.0, 1.5, 2.0])


def make_tissue():
    """Tissue of 400 within air, noisy on one side, as a volume with an affine."""
    random = np.random.default_rng(0)
    voxels = np.zeros((80, 60, 40), np.float32)
    voxels[8:-8, 6:-6, 4:-4] = 400
    voxels[40:, 30:] += random.normal(0, 60, (40, 30, 40)) * (voxels[40:, 30:] > 0)
    return Volume("head", voxels, np.diag([-1.0, 1.5, 2.0, 1.0]), {})


def test_each_ball_has_its_volume_its_contrast_and_its_distance():
    volume = make_tissue()
    voxels, mask, lesions = insert_lesions(volume, contrasts=(-0.3, 0.2), distance=12)
    added = voxels - volume.voxels
    sites = np.array([lesion.site for lesion in lesions])
    assert pdist(sites * SPACING).min() >= 12
    assert ((sites * SPACING >= 8.9) & (sites * SPACING < np.array(added.shape) * SPACING - 8.9)).all()
    kinds = {(lesion.diameter, lesion.contrast) for lesion in lesions}
    assert len(kinds) == 8
    inside = np.zeros(added.shape, bool)
    for number, lesion in enumerate(lesions, 1):
        half = np.ceil(lesion.diameter / 2 / SPACING + 0.5).astype(int)
        near = tuple(slice(s - n, s + n + 1) for s, n in zip(lesion.site, half, strict=True))
        inside[near] = True
        assert (mask[near] == number).any() and mask[lesion.site] == number
        if lesion.site[0] < 35 and lesion.site[1] < 25:  # in even tissue
            ball = np.pi / 6 * lesion.diameter**3 * 400 * lesion.contrast
            assert added[near].sum() * SPACING.prod() == pytest.approx(ball, rel=0.1)
            assert added[lesion.site] == pytest.approx(400 * lesion.contrast, rel=0.35)
    assert not added[~inside].any() and not mask[~inside].any()
    # The noisy quarter is the less even half of tissue.
    assert np.mean((sites[:, 0] > 46) & (sites[:, 1] > 34)) < 0.1


def test_sites_are_the_same_again_and_too_little_tissue_is_refused():
    volume = make_tissue()
    first, again, other = (insert_lesions(volume, distance=12, seed=s)[2] for s in (0, 0, 1))
    assert first == again != other
    with pytest.raises(ValueError, match=r"found \d sites for lesions, expected at least 32"):
        insert_lesions(volume, distance=40)
