"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/udean."""

from common.degradations import KSpaceTruncation

TINY = dict(
    network=("features", "groups", "blocks", "reduction", "turns"),
    training={"turns": 3, "learning_rate": 0.002},
    degradation=KSpaceTruncation((2, 2, 2)),
    groups={"source": (0, 1), "target": (2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    lines=350,
    networks=("ts_rcan",),
    budgets={
        "batch": (1, 13),
        "iteration": (1, 963),
        "volume": (0, 1065),
    },
)
