"""Ignite handlers that MONAI lacks."""

from .checkpoint import BestModel, LastModel, ResumableState
from .degradation_report import DegradationReport
from .evaluation import EvaluationReport, check_own_table
from .features import FeatureReport
from .forecast import Forecast
from .history import LossHistory
from .kernel_report import KernelReport
from .results import InferenceResults, MeanDataConsistency, log_path
from .translation import TranslationReport
from .uncertainty import UncertaintyMap, UncertaintyReport
from .validation import ValidationWithInitial
from .viewer import ResultViewer
