"""``python -m common profile`` on bundles with different inputs."""

import re

from common.program.commands.profile import profile_bundle
from tests.refused import refused

# Convolutions of 3x3, then batch norm: (9 inputs + 2) outputs; the last one has a bias instead.
GUIDED_RDN = 2 * sum((9 * i + 2) * 4 for i in (1, 4, 1, 8, 12, 4, 4)) + 2 * (9 * 4 + 1)


def test_one_bundle_and_table_2_of_the_udean_paper(capsys):
    """One with a guide, which the inferer says the size of; all of a table; two, of which one has the sizes given."""
    sizes = {"features": 4, "blocks": 1, "layers": 1, "cascade": 2}
    profile_bundle("bundles/guided_rdn", slab=16, volume=(8, 8, 3), repeats=2, **sizes)
    head, _, line, device = capsys.readouterr().out.splitlines()
    assert "seconds for 8x8x3" in head and device.startswith("CPU")
    assert re.search(rf"guided_rdn +{GUIDED_RDN:,} +0\.\d+ G +16x16x1 +\d+\.\d\d \+- \d+\.\d\d", line)
    names = ("zssr", "pseudo_sr", "udean")
    profile_bundle(",".join(f"bundles/{name}" for name in names), slab=16, volume=(8, 8, 4))
    table = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert table.keys() >= set(names)
    parameters = {"udean": "2,457,002", "pseudo_sr": "4,764,561"}
    assert all(f" {number} " in table[name] for name, number in parameters.items()), table
    profile_bundle("bundles/zssr,bundles/udean", slab=16, volume=(8, 8, 4), features=8, groups=1, blocks=1, reduction=4)
    assert "3,657" in capsys.readouterr().out.splitlines()[2]


def test_refused(tmp_path):
    refused(lambda: profile_bundle(str(tmp_path)), FileNotFoundError, "train.json", "--bundle")
    refused(lambda: profile_bundle("bundles/udean,bundles/zssr", featurs=8), ValueError, "train.json", "featurs")
    refused(lambda: profile_bundle("bundles/udean", volume=(8, 8)), ValueError, "--volume", "(8, 8)")
