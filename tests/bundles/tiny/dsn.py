"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/dsn."""

from common.degradations import GaussianProfile

TINY = dict(
    network={"features": 4, "blocks": 1},
    training={
        "slice_axis": "SI",
        "dsn_blocks": 1,
        "lr_patch": [12, 12, 1],
        "batch_size": 4,
        "max_epochs": 2,
        "epoch_length": 4,
    },
    degradation=GaussianProfile((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="srcnn",
    networks=("dsn",),
)
