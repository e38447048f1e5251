"""Ignite engines of the collection."""

from .evaluator import Case, CaseEvaluator
from .trainer import AlternatingTrainer, Player

__all__ = ["AlternatingTrainer", "Case", "CaseEvaluator", "Player"]
