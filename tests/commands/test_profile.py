"""``python -m common profile`` on bundles with different inputs."""

import re

import pytest

from common.commands.profile import profile

# Convolutions of 3x3, then batch norm: (9 inputs + 2) outputs; the last one has a bias instead.
GUIDED_RDN = 2 * sum((9 * i + 2) * 4 for i in (1, 4, 1, 8, 12, 4, 4)) + 2 * (9 * 4 + 1)


def test_one_bundle(capsys):
    """With a guide, which the inferer says the size of."""
    sizes = {"features": 4, "blocks": 1, "layers": 1, "cascade": 2}
    profile("bundles/guided_rdn", slab=16, volume=(8, 8, 3), repeats=2, **sizes)
    head, _, line, device = capsys.readouterr().out.splitlines()
    assert "seconds for 8x8x3" in head and device.startswith("CPU")
    assert re.search(rf"guided_rdn +{GUIDED_RDN:,} +0\.\d+ G +16x16x1 +\d+\.\d\d \+- \d+\.\d\d", line)


def test_table_2_of_the_udean_paper(capsys):
    """All its methods in one table, and another of two slices; sizes go to those that have them."""
    bundles = [f"bundles/{name}" for name in ("zssr", "dasr", "pseudo_sr", "blind_sr", "udean", "tscn")]
    profile(",".join(bundles), slab=16, volume=(8, 8, 4), turns=1)
    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line for line in lines[2:]}
    parameters = {"udean": "2,457,002", "dasr": "2,457,002", "pseudo_sr": "4,764,561", "blind_sr": "4,764,561"}
    assert all(f" {number} " in table[name] for name, number in parameters.items()), lines
    assert all(name.removeprefix("bundles/") in table for name in bundles)
    profile("bundles/zssr,bundles/udean", slab=16, volume=(8, 8, 4), features=8, groups=1, blocks=1, reduction=4)
    assert "3,657" in capsys.readouterr().out.splitlines()[2]


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="--bundle names the folder"):
        profile(str(tmp_path))
    with pytest.raises(ValueError, match=r"no train\.json has a key featurs"):
        profile("bundles/udean,bundles/zssr", featurs=8)
    with pytest.raises(ValueError, match="three sizes"):
        profile("bundles/udean", volume=(8, 8))
