"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/mdcsrn_gan."""

from common.degradations import GaussianProfile

TINY = dict(
    network={"growth": 4, "blocks": 2, "units": 2},
    training={
        "slice_axis": "SI",
        "lr_patch": [12, 12, 1],
        "batch_size": 4,
        "max_epochs": 2,
        "epoch_length": 4,
        "widths": [4, 8],
        "critic#dense": 8,
    },
    degradation=GaussianProfile((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="srcnn",
)
