"""Pictures and tables of training and evaluation, as PNG, CSV and JSON files."""

from .case import case_figure, line_profile
from .cohort import box_plots, merge_tables, write_table
from .features import feature_maps, feature_tsne
from .kernel_figures import kernel_errors, kernel_sheet
from .mscn import mscn_distance, mscn_figure
from .training import loss_curves
from .translation import translation_figure

__all__ = [
    "box_plots",
    "case_figure",
    "feature_maps",
    "feature_tsne",
    "kernel_errors",
    "kernel_sheet",
    "line_profile",
    "loss_curves",
    "merge_tables",
    "mscn_distance",
    "mscn_figure",
    "translation_figure",
    "write_table",
]
