from common.degradations import GaussianProfile

TINY = dict(
    network=("features",),
    training={"slice_axis": "SI"},
    degradation=GaussianProfile((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    exact=False,
    budgets={
        "batch": (0, 3),
        "iteration": (0, 68),
        "volume": (0, 58),
    },
)
