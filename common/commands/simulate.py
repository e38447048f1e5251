"""``python -m common simulate``: write a cohort of simulated heads, T1w, T2w, CT and random contrasts, as NIfTI."""

from ..data.simulation.heads import simulate_heads

__all__ = ["simulate_heads"]
