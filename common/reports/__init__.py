"""Pictures and tables of training and evaluation, as PNG, CSV and JSON files."""

from .case import case_figure, error, panels_figure, panels_profile
from .cohort import MEASURED, box_plots, measured_as, trained, write_table
from .comparison import PLANES_FILE, RESERVED, merge_pictures, merge_tables
from .curves import calibration_curve, degradation_figure, loss_curves, noise_range
from .features import feature_maps, feature_tsne, translation_figure
from .files import aligned
from .kernel_figures import kernel_errors, kernel_sheet
from .mscn import mscn_distance, mscn_figure
from .planes import View, save_panels
from .viewer import about_result, check_viewer, viewer
