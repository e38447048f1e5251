"""Pictures and tables of training and evaluation, as PNG, CSV and JSON files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "case": ["compute_error_panel", "draw_case", "draw_panels"],
        "cohort": ["draw_box_plots", "write_table"],
        "curves": ["draw_loss_curves"],
        "features": ["draw_feature_maps", "draw_feature_tsne", "draw_translation"],
        "files": ["save_figure"],
        "kernel_figures": ["draw_kernel_figure", "tabulate_kernel_errors"],
        "mscn": ["compute_mscn_distance", "draw_mscn"],
    },
)
