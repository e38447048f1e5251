import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from common.runtime.memory import keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def kept():
    before = resident()
    torch.ones(50_000_000)
    return resident() - before > 150e6
print(kept(), keep_freed_memory(), kept())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_the_c_library_keeps_freed_memory_when_it_is_asked_for():
    said = subprocess.check_output([sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2], text=True)
    assert said == "False None True\n"
