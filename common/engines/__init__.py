"""Ignite engines of the collection."""

from .evaluator import Case, CaseEvaluator
from .player import Player
from .trainer import AlternatingTrainer

__all__ = ["AlternatingTrainer", "Case", "CaseEvaluator", "Player"]
