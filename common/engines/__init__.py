"""Ignite engines of the collection."""

from .evaluator import CaseEvaluator
from .trainer import AlternatingTrainer, Player

__all__ = ["AlternatingTrainer", "CaseEvaluator", "Player"]
