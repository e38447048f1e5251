"""Ignite handlers that MONAI lacks."""

from .checkpoint import BestModel, LastModel, ResumableState
from .degradation_report import DegradationReport
from .evaluation import EvaluationReport, check_table_scans
from .feature_report import FeatureReport
from .history import LossHistory
from .kernel_report import KernelReport
from .results import InferenceResults, MeanDataConsistency, get_log_path
from .spread import SpreadMap
from .translation_report import TranslationReport
from .validation import ValidationWithInitial, VolumePSNR
