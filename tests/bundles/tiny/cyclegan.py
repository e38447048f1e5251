TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    like="udean",
    terms={
        "": (
            "generators/cycle/lr generators/cycle/hr generators/adversarial/hr generators/adversarial/lr "
            "discriminators/hr/real discriminators/hr/fake discriminators/lr/real discriminators/lr/fake"
        ),
    },
)
