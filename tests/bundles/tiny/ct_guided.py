"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/ct_guided."""

from common.degradations import GaussianProfile

TINY = dict(
    network=("features", "growth", "blocks", "layers"),
    training={
        "slice_axis": "SI",
        "ct_offset": 0,  # phantoms are no CT
        "window": [0, 900],
        "learning_rate": "$[0.001, 0.001, 0.00001][@stage - 1]",  # rounding grows with the steps of adversaries
    },
    degradation=GaussianProfile((1, 1, 4)),
    groups={"source": (0, 1), "target": (2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    source="ct",
    stages=("_1", "_2", "_3"),
    weights=("stage_1.pt", "stage_2.pt", "stage_3.pt"),
    optional=("validation",),
    lines=400,
    networks=("munit",),
    budgets={
        "batch_1": (1, 25),
        "iteration_1": (1, 102),
        "batch_2": (1, 25),
        "iteration_2": (1, 229),
        "batch_3": (1, 25),
        "iteration_3": (1, 2554),
        "volume": (2, 516),
    },
)
