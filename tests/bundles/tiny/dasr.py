"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/dasr."""

from common.degradations import KSpaceTruncation

TINY = dict(
    network={"features": 8, "groups": 1, "blocks": 1, "reduction": 4},
    training={
        "lr_patch": [16, 16, 3],
        "batch_size": 2,
        "widths": [4, 8],
        "max_epochs": 2,
        "epoch_length": 4,
    },
    degradation=KSpaceTruncation((2, 2, 2)),
    groups={"source": (0, 1), "target": (2, 3), "validation": (4,), "test": (5,)},
    contrast="t1w",
    like="udean",
    networks=("dasr",),
)
