"""Ignite handlers that MONAI lacks."""

from .checkpoint import BestModel, LastModel, ResumableState
from .evaluation import EvaluationReport, check_table_scans
from .history import Forecast, LossHistory
from .interval import IntervalMap
from .results import InferenceResults, MeanDataConsistency, get_log_path
from .spread import SpreadMap
from .training_reports import DegradationReport, FeatureReport, KernelReport, TranslationReport
from .validation import ValidationWithInitial, VolumePSNR
from .viewer import ResultViewer
