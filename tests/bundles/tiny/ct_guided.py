from common.degradations import GaussianProfile

SLOWER = {"_target_": "torch.optim.Adam", "_mode_": "callable", "lr": "$0.01 * @learning_rate"}
TINY = dict(
    network={"features": 4, "growth": 4, "blocks": 1, "layers": 1},
    training={
        **{"content_features": 4, "lambda_3": 0.0, "lr_patch": [24, 4], "batch_size": 4, "stages#2#epoch_length": 4},
        **{f"graph#networks#{network}_mr#blocks": 1 for network in ("content", "decoder")},
        "graph#networks#attributes_mr#downsamplings": 2,
        **{f"graph#networks#discriminator_mr#{size}": n for size, n in (("features", 4), ("layers", 2), ("scales", 2))},
        "slice_axis": "SI",
        "ct_offset": 0,  # phantoms are no CT
        "window": [0, 900],
        "learning_rate": 0.001,
        # Rounding grows with the steps of adversaries.
        **{f"stages#2#players#{player}#optimizer": SLOWER for player in ("discriminators", "translation")},
    },
    degradation=GaussianProfile((1, 1, 4)),
    source="ct",
    lengths={"_3": ("max_epochs", "stages#2#epoch_length")},
    weights=("stage_1.pt", "stage_2.pt", "stage_3.pt"),
    optional=("validation",),
    stages=("_1", "_2", "_3"),
)
