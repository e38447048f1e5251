TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    like="udean",
    networks=("ensemble",),
    terms={
        "": (
            "correction/adversarial/lr correction/adversarial/clean correction/adversarial/sr "
            "correction/cycle/clean correction/identity/clean correction/ensemble/clean sr/image/l1 "
            "discriminators/lr/real discriminators/lr/fake discriminators/clean/real discriminators/clean/fake "
            "discriminators/sr/real discriminators/sr/fake"
        ),
    },
)
