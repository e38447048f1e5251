from common.degradations import KSpaceTruncation

TINY = dict(
    network={"channels": [4, 8], "blocks": 1, "steps": 2},
    training={"patch": 24, "batch_size": 4, "slice_axis": "SI"},
    degradation=KSpaceTruncation((2, 2, 1)),
    groups={"source": (0, 1, 2, 3), "validation": (4,), "test": (5,)},
    like="srcnn",
)
