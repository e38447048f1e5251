"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/zssr."""

from common.degradations import KSpaceTruncation

TINY = dict(
    network=("features", "layers"),
    training={
        "slice_axis": "SI",
        "scales": [1.0, 0.8],
    },
    degradation=KSpaceTruncation((2, 2, 2)),
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="udean",
    optional=("validation",),
)
