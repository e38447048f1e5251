"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/tscn."""

from common.degradations import GaussianProfile

TINY = dict(
    network={"features": 4, "blocks": 1},
    training={
        "slice_axis": "SI",
        "lr_patch": [12, 5],
        "batch_size": 4,
        "max_epochs": 2,
        "epoch_length": 4,
    },
    degradation=GaussianProfile((1, 1, 4)),
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="ct_guided",
    networks=("tscn",),
)
