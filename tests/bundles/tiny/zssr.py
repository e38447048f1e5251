TINY = dict(
    network=("features", "layers"),
    training={"slice_axis": "SI"},
    groups={"target": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="udean",
    optional=("validation",),
)
