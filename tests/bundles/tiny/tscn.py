"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/tscn."""

from common.degradations import GaussianProfile

TINY = dict(
    network=("features", "blocks"),
    training={"slice_axis": "SI"},
    degradation=GaussianProfile((1, 1, 4)),
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="ct_guided",
    networks=("tscn",),
    optional=("validation",),
)
