from common.degradations import KSpaceTruncation

TINY = dict(
    network={"features": 8, "groups": 1, "blocks": 1, "reduction": 4},
    training={"widths": [8, 8, 8, 8], "lr_patch": 16, "batch_size": 2, "learning_rate": 0.002},
    degradation=KSpaceTruncation((2, 2, 2)),
)
