"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/reconresnet."""

from common.degradations import GaussianProfile

TINY = dict(
    network=("features", "blocks"),
    training={"slice_axis": "SI"},
    degradation=GaussianProfile((1, 1, 4)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="ct_guided",
    networks=("recon_resnet",),
)
