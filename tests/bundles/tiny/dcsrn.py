"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/dcsrn."""

from common.degradations import GaussianProfile

TINY = dict(
    network=("growth", "units"),
    training={"slice_axis": "SI"},
    degradation=GaussianProfile((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="srcnn",
)
