TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    like="udean",
    networks=("cyclegan",),
    terms={
        "": (
            "generators/cycle/lr generators/cycle/hr generators/identity/lr generators/identity/hr "
            "generators/adversarial/hr generators/adversarial/lr "
            "discriminators/hr/real discriminators/hr/fake discriminators/lr/real discriminators/lr/fake"
        ),
    },
)
