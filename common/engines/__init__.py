"""Ignite engines of the collection."""

from .cascade import CascadeStage
from .evaluation import Evaluation
from .evaluator import Case, CaseEvaluator
from .kernel_estimation import KernelEstimation
from .player import ConstantThenLinear, Player
from .run_folder import RunFolder
from .staged import StagedTrainer
from .trainer import AlternatingTrainer
from .validation import Validation
