"""Ignite engines of the collection."""

from .evaluation import Evaluation
from .evaluator import Case, CaseEvaluator
from .inference import Inference
from .player import Player, StepEpochs
from .trainer import AlternatingTrainer, of_stage
from .validation import Validation

__all__ = [
    "AlternatingTrainer",
    "Case",
    "CaseEvaluator",
    "Evaluation",
    "Inference",
    "Player",
    "StepEpochs",
    "Validation",
    "of_stage",
]
