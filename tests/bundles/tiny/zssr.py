"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/zssr."""

from common.degradations import KSpaceTruncation

TINY = dict(
    network={"features": 4, "layers": 3},
    training={
        "slice_axis": "SI",
        "lr_patch": [12, 12],
        "scales": [1.0, 0.8],
        "ensemble": False,
        "batch_size": 4,
        "max_epochs": 2,
        "epoch_length": 4,
    },
    degradation=KSpaceTruncation((2, 2, 2)),
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="udean",
)
