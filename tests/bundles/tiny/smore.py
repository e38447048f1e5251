TINY = dict(
    network={"features": 4, "blocks": 1},
    training={"lr_patch": [16, 16], "batch_size": 4, "iterations": 3, "slice_axis": "SI"},
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="ct_guided",
    optional=("validation",),
)
