TINY = dict(
    network={"features": 4, "blocks": 1},
    training={"lr_patch": [16, 6], "batch_size": 4, "iterations": 3, "slice_axis": "SI"},
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    optional=("validation",),
    like="ct_guided",
)
