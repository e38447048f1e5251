import subprocess
import sys

import nibabel as nib
import numpy as np

# Each takes from 20 to 500 ms to load.
SLOW = [
    "matplotlib",
    "onnx",
    "pandas",
    "requests",
    "scipy.interpolate",
    "scipy.signal",
    "scipy.stats",
    "sklearn",
    "sympy",
    "tensorboard",
    "tifffile",
    "torch._dynamo",
    "torch.distributed.optim",
    "torch.distributed.tensor",
]
INFERENCE = f"""
import gc, sys
from common.__main__ import main
main(["super-resolve", *sys.argv[1:]])
print([name for name in {SLOW} if name in sys.modules], gc.isenabled())
from common.reports import draw_case  # global figures would leak memory over a cohort and need a display
print([name for name in ("matplotlib.pyplot", "sklearn") if name in sys.modules])
import matplotlib.figure, pandas, scipy.signal, skimage.filters, sklearn.metrics, torch
from monai.bundle import ConfigWorkflow
from torch.distributed.optim import ZeroRedundancyOptimizer
print(issubclass(ZeroRedundancyOptimizer, torch.optim.Optimizer), None in sys.modules.values())
"""


def test_inference_loads_nothing_that_it_does_not_need_and_what_was_left_out_can_be_imported_afterwards(tmp_path):
    values = np.random.default_rng(0).normal(100, 9, (16, 16, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii.gz")
    words = [tmp_path / "scan.nii.gz", tmp_path / "out", "--bundle=udean_window", "--data_consistency_iterations=0"]
    said = subprocess.check_output([sys.executable, "-c", INFERENCE, *words], text=True)
    assert (tmp_path / "out" / "scan_sr.nii.gz").is_file()
    assert said.splitlines()[-3:] == ["[] True", "[]", "True False"]
