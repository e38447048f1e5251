from functools import partial

from common.physics.scale import choose_zero_shot_images, get_in_plane_number, get_slice_factor, get_volume_scale

from ..refused import refused


def test_a_scale_that_does_not_fit_the_axes_is_named():
    for function, *wrong in (
        (get_in_plane_number, [2, 3, 1], [2, 2, 2], [2, 2], 2, [2.0, 2, 1], [0, 0, 1], "2,2,1", [True, True, 1]),
        (get_slice_factor, [2, 1, 4], [1, 2, 4], [1, 1], 4, [1, 1, 0], [1, 1, 2.5]),
        (get_volume_scale, 2, [2, 2], [2, 2, 0.5], None),
    ):
        for scale in wrong:
            refused(partial(function, scale=scale), ValueError, f"scale is {scale!r}")
    assert get_in_plane_number(scale=[3, 3, 1]) == 3 and get_slice_factor(scale=(1, 1, 4)) == 4
    assert get_slice_factor(must_be_whole=False, scale=(1, 1, 2.5)) == 2.5
    assert list(get_volume_scale(scale=[2, 2, 1])) == [2, 2, 1]


def test_other_scales_teach_nothing():
    for scale in ([2, 2, 4], [1, 2, 2], [1, 1, 1], [2, 2], [2.0, 2, 2], "auto"):
        refused(partial(choose_zero_shot_images, scale=scale), ValueError, f"scale is {scale!r}", "[n, n, 1]")
