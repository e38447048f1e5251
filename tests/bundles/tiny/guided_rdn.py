"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/guided_rdn."""

from common.degradations import GaussianProfile

TINY = dict(
    network={
        "features": 4,
        "blocks": 1,
        "layers": 1,
        "cascade": 2,
        "back_projections": 1,
        "measurement": "@degradation",
    },
    training={
        "slice_axis": "SI",
        "hr_patch": 16,
        "angles": [0, 30, 90],
        "scales": [1.0, 0.8],
        "batch_size": 4,
        "max_epochs": 2,
        "epoch_length": 4,
        "val_interval": 1,
    },
    degradation=GaussianProfile((2, 2, 1)),
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t2w",
    guided=True,
    stages=("_1", "_2"),
    lines=250,
    networks=("guided_rdn",),
    budgets={
        "batch_1": (1, 24),
        "iteration_1": (1, 121),
        "batch_2": (1, 24),
        "iteration_2": (1, 121),
        "volume": (2, 379),
    },
)
