"""Pictures and tables of training and evaluation, as PNG, CSV and JSON files."""

from .case import case_figure, line_profile
from .cohort import box_plots, merge_tables, write_table
from .features import feature_maps, feature_tsne
from .training import loss_curves

__all__ = [
    "box_plots",
    "case_figure",
    "feature_maps",
    "feature_tsne",
    "line_profile",
    "loss_curves",
    "merge_tables",
    "write_table",
]
