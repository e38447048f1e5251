TINY = dict(
    network={"features": 2, "blocks": 1},
    training={"lr_patch": [24, 24], "batch_size": 4, "slice_axis": "SI"},
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="ct_guided",
)
