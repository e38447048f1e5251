"""Ignite engines of the collection."""

from .cascade import CascadeTrainer
from .evaluator import Case, CaseEvaluator
from .inference import Inference
from .kernel_estimation import KernelEstimation
from .player import ConstantThenLinear, Player, StepEpochs
from .run_folder import RunFolder
from .trainer import AlternatingTrainer, of_stage
from .validation import Validation
