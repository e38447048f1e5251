"""``python -m common simulate``: write a cohort of simulated heads, T1w, T2w, CT and random contrasts, as NIfTI."""

from ..data.simulation.subjects import simulate_subjects

__all__ = ["simulate_subjects"]
