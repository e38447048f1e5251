TINY = dict(
    network={"features": 8, "groups": 1, "blocks": 1, "reduction": 4},
    training={"lr_patch": 16, "batch_size": 2, "widths": [8, 8, 8, 8]},
    like="udean",
)
