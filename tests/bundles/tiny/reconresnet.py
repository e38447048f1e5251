"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/reconresnet."""

from common.degradations import GaussianProfile

TINY = dict(
    network={"features": 2, "blocks": 1},
    training={
        "slice_axis": "SI",
        "lr_patch": [24, 24],
        "batch_size": 4,
        "max_epochs": 2,
        "epoch_length": 4,
    },
    degradation=GaussianProfile((1, 1, 4)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="ct_guided",
    networks=("recon_resnet",),
)
