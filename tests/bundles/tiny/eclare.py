TINY = dict(
    network=("features", "blocks"),
    training={"slice_axis": "SI"},
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    optional=("validation",),
    like="ct_guided",
)
