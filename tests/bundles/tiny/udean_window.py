from common.degradations import KSpaceTruncation

TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    training={"learning_rate": 0.002},
    degradation=KSpaceTruncation((2, 2, 2)),
    networks=("ts_rcan",),
    budgets={"batch": (0, 13), "iteration": (0, 964), "volume": (0, 1198)},
    terms={
        "": (
            "degradation/image_adaptation/fake degradation/image_adaptation/real degradation/ours/anchor "
            "generator/image_cycle/l1 generator/image_cycle/ssim "
            "discriminator/lr/real discriminator/lr/fake"
        ),
    },
)
