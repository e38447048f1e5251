TINY = dict(
    network={"features": 4, "layers": 3},
    training={"hr_patch": 16, "batch_size": 4, "slice_axis": "SI"},
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    contrast="t2w",
    guided=True,
    like="guided_rdn",
)
