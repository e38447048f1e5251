"""The arguments of :class:`~tests.bundles.runs.Tiny` for bundles/recnn."""

from common.degradations import GaussianProfile

TINY = dict(
    network={"features": 4, "layers": 3},
    training={
        "slice_axis": "SI",
        "hr_patch": 16,
        "batch_size": 4,
        "max_epochs": 2,
        "epoch_length": 4,
    },
    degradation=GaussianProfile((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t2w",
    guided=True,
    like="guided_rdn",
)
