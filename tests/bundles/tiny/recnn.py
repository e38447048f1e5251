TINY = dict(
    network=("features", "layers"),
    training={"slice_axis": "SI"},
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t2w",
    guided=True,
    like="guided_rdn",
)
