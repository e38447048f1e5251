"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/dasr."""

from common.degradations import KSpaceTruncation

TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    degradation=KSpaceTruncation((2, 2, 2)),
    groups={"source": (0, 1), "target": (2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="udean",
    networks=("dasr",),
)
