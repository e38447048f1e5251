from common.degradations import KSpaceTruncation

TINY = dict(
    network=("features", "groups", "blocks", "reduction"),
    training={"learning_rate": 0.002},
    degradation=KSpaceTruncation((2, 2, 2)),
    budgets={"batch": (0, 13), "iteration": (0, 964), "volume": (0, 1198)},
)
