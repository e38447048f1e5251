from common.degradations import GaussianProfile

SLOWER = {"_target_": "torch.optim.Adam", "_mode_": "callable", "lr": "$0.01 * @learning_rate"}
TINY = dict(
    network=("features", "growth", "blocks", "layers"),
    training={
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
    networks=("munit",),
    budgets={
        "batch_1": (0, 25),
        "iteration_1": (0, 105),
        "batch_2": (0, 25),
        "iteration_2": (0, 239),
        "batch_3": (0, 25),
        "iteration_3": (0, 2554),
        "volume": (0, 596),
    },
    terms={
        "_1": "sr_net/ct",
        "_2": "sr_net/pseudo_mr sr_net/ct sr_net/consistency",
        "_3": (
            "discriminators/mr/real discriminators/mr/fake discriminators/ct/real discriminators/ct/fake "
            "translation/self/mr translation/self/ct translation/cycle/mr translation/cycle/ct "
            "translation/latent/content_x translation/latent/content_y translation/latent/attributes_x "
            "translation/latent/attributes_y translation/adversarial/mr_fake translation/adversarial/ct_fake "
            "sr_net/translated sr_net/ct sr_net/consistency"
        ),
    },
)
