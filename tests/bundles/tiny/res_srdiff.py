TINY = dict(
    network=("channels", "blocks", "steps"),
    training={"slice_axis": "SI"},
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="srcnn",
)
