TINY = dict(
    network={"features": 4, "blocks": 1},
    training={"lr_patch": [12, 5], "batch_size": 4, "slice_axis": "SI"},
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="ct_guided",
    optional=("validation",),
)
