"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/recnn."""

from common.degradations import GaussianProfile

TINY = dict(
    network=("features", "layers"),
    training={"slice_axis": "SI"},
    degradation=GaussianProfile((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t2w",
    guided=True,
    like="guided_rdn",
)
