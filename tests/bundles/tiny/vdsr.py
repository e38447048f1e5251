TINY = dict(
    network={"features": 8, "layers": 3},
    training={"lr_patch": 12, "batch_size": 4, "slice_axis": "SI"},
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="srcnn",
)
