from common.degradations import KSpaceTruncation

TINY = dict(
    network=("channels", "blocks", "steps"),
    training={"slice_axis": "SI"},
    degradation=KSpaceTruncation((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="srcnn",
)
