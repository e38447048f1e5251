TINY = dict(
    network={"growth": 4, "blocks": 2, "units": 2},
    training={"lr_patch": 12, "batch_size": 4, "critic#widths": [4, 8], "critic#dense": 8, "slice_axis": "SI"},
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="srcnn",
)
