"""The C library keeps what tensors give back."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from common.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
tensor = torch.ones(50_000_000)
del tensor
print(resident() - before > 150e6)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory(keep):
    program = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    done = subprocess.run(program, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(keep)
