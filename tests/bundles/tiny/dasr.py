TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    like="udean",
    networks=("dasr",),
    terms={
        "": (
            "dsn/adversarial/lr dsn/low_frequency/lr srn/image/weighted_l1 srn/image/low_l1 srn/adversarial/hr "
            "discriminators/lr/real discriminators/lr/fake discriminators/hr/real discriminators/hr/fake"
        ),
    },
)
