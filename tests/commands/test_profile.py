"""``python -m common profile`` on bundles with different inputs."""

import re

import pytest

from common.commands.profile import profile

SIZES = {
    # Convolutions of 3x3, then batch norm: (9 inputs + 2) outputs; the last one has a bias instead.
    "guided_rdn": (
        {"features": 4, "blocks": 1, "layers": 1, "cascade": 2},
        2 * sum((9 * i + 2) * 4 for i in (1, 4, 1, 8, 12, 4, 4)) + 2 * (9 * 4 + 1),
        "16x16x1",
    ),
    "udean": ({"features": 8, "groups": 1, "blocks": 1, "reduction": 4}, None, "16x16x3"),
}


@pytest.mark.parametrize("bundle", SIZES)
def test_profile(bundle, capsys):
    sizes, parameters, shape = SIZES[bundle]
    profile(f"bundles/{bundle}", slab=16, volume=(8, 8, 3), **sizes)
    printed = capsys.readouterr().out
    assert parameters is None or re.search(rf"^parameters +{parameters:,}$", printed, re.MULTILINE)
    assert re.search(rf"multiply-adds on {shape} +0\.\d+ G", printed) and re.search(r"seconds for 8x8x3 +\d", printed)


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="--bundle names the folder"):
        profile(str(tmp_path))
    with pytest.raises(ValueError, match="no key featurs"):
        profile("bundles/udean", featurs=8)
    with pytest.raises(ValueError, match="three sizes"):
        profile("bundles/udean", volume=(8, 8))
