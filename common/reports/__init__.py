"""Pictures and tables of training and evaluation, as PNG, CSV and JSON files."""

from .case import compute_error_panel, draw_case, draw_panels
from .cohort import MEASURED, draw_box_plots, write_table
from .comparison import PLANES_FILE, RESERVED, merge_pictures, merge_tables
from .curves import draw_degradation, draw_loss_curves, draw_validation_curves, format_noise_range
from .features import draw_feature_maps, draw_feature_tsne, draw_translation
from .files import align_columns, save_figure
from .kernel_figures import draw_kernel_figure, tabulate_kernel_errors
from .mscn import compute_mscn_distance, draw_mscn
from .planes import View, save_panels
from .viewer import check_viewer, read_result_record, write_viewer
