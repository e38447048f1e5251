TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    like="udean",
    terms={
        "": (
            "style/adversarial/target style/adversarial/source style/cycle/target style/cycle/source "
            "style/identity/target style/identity/source sr/image/l1 discriminators/target/real "
            "discriminators/target/fake discriminators/source/real discriminators/source/fake"
        ),
    },
)
