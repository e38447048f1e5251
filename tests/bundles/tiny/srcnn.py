"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/srcnn."""

from common.degradations import GaussianProfile

TINY = dict(
    network={"features": [8, 4]},
    training={
        "slice_axis": "SI",
        "lr_patch": [12, 12, 1],
        "batch_size": 4,
        "max_epochs": 2,
        "epoch_length": 4,
    },
    degradation=GaussianProfile((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    networks=("srcnn",),
    exact=False,
    budgets={
        "batch": (0, 3),
        "iteration": (1, 68),
        "volume": (0, 52),
    },
)
