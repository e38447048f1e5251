"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/mdcsrn_gan."""

from common.degradations import GaussianProfile

TINY = dict(
    network=("growth", "blocks", "units"),
    training={"slice_axis": "SI"},
    degradation=GaussianProfile((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="srcnn",
)
