"""The scale of methods that act on some axes only."""

import pytest

from common.scale import across_slices, along_each_axis, in_plane


def test_what_fits():
    assert in_plane(scale=[3, 3, 1]) == 3 and across_slices(scale=(1, 1, 4)) == 4
    assert across_slices(whole=False, scale=(1, 1, 2.5)) == 2.5
    assert along_each_axis(scale=[2, 2, 1]) == [2, 2, 1]


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        *[(in_plane, n) for n in ([2, 3, 1], [2, 2, 2], [2, 2], 2, [2.0, 2, 1], [0, 0, 1], "2,2,1", [True, True, 1])],
        *[(across_slices, n) for n in ([2, 1, 4], [1, 1], 4, [1, 1, 0], [1, 1, 2.5])],
        *[(along_each_axis, n) for n in (2, [2, 2], [2, 2, 0.5], None)],
    ],
)
def test_what_does_not_is_named(function, numbers):
    with pytest.raises(ValueError, match=r"^scale is .*, expected .*for example --scale "):
        function(scale=numbers)
