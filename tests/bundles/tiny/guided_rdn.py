from common.degradations import GaussianProfile

TINY = dict(
    network={"features": 4, "blocks": 1, "layers": 1, "cascade": 2, "back_projections": 1, "band_limited": False},
    training={
        "hr_patch": 16,
        "batch_size": 4,
        "slice_axis": "SI",
        "angle_step": 30,
        "scales": [1.0, 0.8],
        "val_interval": 1,
    },
    degradation=GaussianProfile((2, 2, 1)),
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t2w",
    guided=True,
    stages=("_1", "_2"),
)
