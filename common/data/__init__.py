"""Datalists, scans of a folder, volumes in memory and slabs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["prepare_lr_hr"],
        "ct": ["LoadCTd"],
        "lists.datalist": ["load_datalist", "pair_contrasts", "select_hr", "select_lr", "use_ct_as_hr"],
        "lists.groups": ["Datalist", "Group", "choose_default_slice_axis"],
        "lists.spacing": [
            "check_scale",
            "identify_slice_axis",
            "measure_in_plane_spacing",
            "measure_thin_slice_spacing",
        ],
        "loaders.coordinates": ["CoordinateLoader", "MeasuredVoxels"],
        "loaders.image_pairs": ["ImagePairLoader", "InterpolatedImageLoader", "TripletLoader"],
        "loaders.kernel_crops": ["KernelCropLoader", "select_kernel_cases"],
        "loaders.slabs": ["PairedSlabLoader", "UnpairedSlabLoader", "are_axes_alike"],
        "loaders.slices": ["KernelSliceLoader", "SliceLoader"],
        "loaders.through_plane": ["ThroughPlaneLoader", "check_patch"],
        "loaders.volumes": ["VolumeCache"],
        "description": ["describe_result"],
        "guided_scans": ["GuidedScans"],
        "scans": ["Scans"],
        "stacks": ["Stacks"],
        "unknown_blur": ["BlurHRd", "UnknownBlur"],
    },
)
