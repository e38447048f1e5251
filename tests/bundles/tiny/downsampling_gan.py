from common.degradations import InPlaneKernel
from common.physics.blur_kernels import make_gaussian_kernel

TINY = dict(
    network={"features": 4, "blocks": 1},
    training={
        **{f"kernel_graph#networks#{network}#features": 4 for network in ("generator", "discriminator")},
        **{f"blur#{size}": n for size, n in (("slice_step", 6), ("batch_volumes", 2), ("crop", 36), ("crops", 2))},
        **{"kernel_epochs": 2, "lr_patch": 12, "batch_size": 4, "slice_axis": "SI"},
        "kernel_epoch_length": 1,  # rounding grows tenfold an iteration: what is untrained stands on its kinks
    },
    degradation=InPlaneKernel(make_gaussian_kernel((2.0, 1.0), 30), 2),
    unvalidated=("_kernels_1",),
    lengths={"_kernels_1": ("kernel_epochs", "kernel_epoch_length")},
    folders=("kernels",),
    stages=("_kernels_1", "_edsr"),
)
