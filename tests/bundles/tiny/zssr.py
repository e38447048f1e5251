TINY = dict(
    network={"features": 4, "layers": 3},
    training={"lr_patch": [12, 12], "ensemble": False, "batch_size": 4, "iterations": 3, "slice_axis": "SI"},
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="udean",
    optional=("validation",),
)
