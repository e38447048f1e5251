import os

# In every process that tests start: what is chosen by measurement is then float32 on any processor.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")

import pytest
import torch

THREADS = torch.get_num_threads()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """The same random numbers every time. Threads cost tiny tensors five times the work; benchmarks keep them all."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS if "benchmarks" in item.path.parts else 1)
