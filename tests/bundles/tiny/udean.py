from common.degradations import KSpaceTruncation

TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    training={"learning_rate": 0.002},
    degradation=KSpaceTruncation((2, 2, 2)),
    networks=("ts_rcan",),
    budgets={
        "batch": (0, 8),
        "iteration": (0, 1720),
        "volume": (0, 1192),
    },
    terms={
        "": (
            "generator/image_cycle/l1 generator/image_cycle/ssim generator/image_cycle/adversarial "
            "generator/feature_cycle/l1 "
            "generator/hr_consistency/l1 generator/hr_consistency/ssim generator/hr_consistency/adversarial "
            "generator/lr_consistency/l1 generator/lr_consistency/ssim generator/lr_consistency/adversarial "
            "generator/feature_adaptation/target generator/feature_adaptation/source "
            "generator/image_adaptation/fake generator/image_adaptation/real "
            "discriminator/lr/real discriminator/lr/fake discriminator/feature/source discriminator/feature/target "
            "discriminator/hr/real discriminator/hr/fake discriminator/hr/self"
        ),
    },
)
