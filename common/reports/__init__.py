"""Pictures and tables of training and evaluation, as PNG, CSV and JSON files."""

from .case import case_figure, error, panels_figure, panels_profile
from .cohort import (
    MEASURED,
    PLANES_FILE,
    RESERVED,
    box_plots,
    measured_as,
    merge_pictures,
    merge_tables,
    trained,
    write_table,
)
from .degradation import degradation_figure, noise_range
from .features import feature_maps, feature_tsne
from .kernel_figures import kernel_errors, kernel_sheet
from .mscn import mscn_distance, mscn_figure
from .planes import View, save_panels
from .text import aligned
from .training import loss_curves
from .translation import translation_figure
from .uncertainty import calibration_curve
from .viewer import about_result, check_viewer, viewer
