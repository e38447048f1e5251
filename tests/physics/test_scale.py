from functools import partial

from common.physics.scale import across_slices, along_each_axis, in_plane, zero_shot

from ..refused import refused


def test_a_scale_that_does_not_fit_the_axes_is_named():
    for function, *wrong in (
        (in_plane, [2, 3, 1], [2, 2, 2], [2, 2], 2, [2.0, 2, 1], [0, 0, 1], "2,2,1", [True, True, 1]),
        (across_slices, [2, 1, 4], [1, 2, 4], [1, 1], 4, [1, 1, 0], [1, 1, 2.5]),
        (along_each_axis, 2, [2, 2], [2, 2, 0.5], None),
    ):
        for scale in wrong:
            refused(partial(function, scale=scale), ValueError, f"scale is {scale!r}, expected ", "example --scale ")
    assert in_plane(scale=[3, 3, 1]) == 3 and across_slices(scale=(1, 1, 4)) == 4
    assert across_slices(whole=False, scale=(1, 1, 2.5)) == 2.5 and along_each_axis(scale=[2, 2, 1]) == [2, 2, 1]


def test_other_scales_teach_nothing():
    for scale in ([2, 2, 4], [1, 2, 2], [1, 1, 1], [2, 2], [2.0, 2, 2], "auto"):
        refused(
            partial(zero_shot, scale=scale),
            ValueError,
            f"scale is {scale!r}, expected [n, n, n], [n, n, 1] or [1, 1, n]",
        )
