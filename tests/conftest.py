"""What all tests share."""

import pytest
import torch

THREADS = torch.get_num_threads()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """The same random numbers every time, and one thread.

    Tensors are tiny here, and threads that wait for each other cost five times the work. Benchmarks keep them all.
    """
    torch.manual_seed(0)
    torch.set_num_threads(THREADS if "benchmarks" in item.path.parts else 1)
