TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    like="udean",
)
