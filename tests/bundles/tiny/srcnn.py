from common.degradations import GaussianProfile

TINY = dict(
    network={"features": [8, 4]},
    training={"lr_patch": 12, "batch_size": 4, "slice_axis": "SI"},
    degradation=GaussianProfile((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    exact=False,
)
