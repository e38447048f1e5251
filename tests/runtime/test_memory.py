import json
import math
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.runtime import memory

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


@pytest.mark.parametrize("left", [3.0, math.inf])
def test_free_memory_is_that_of_the_system_and_of_the_container(left, monkeypatch):
    """On any system; control groups are Linux's."""
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=5.0))
    monkeypatch.setattr(memory, "_measure_group_limit", lambda: left)
    assert memory.measure_free_memory(torch.device("cpu")) == min(5, left)


LIMITED = """
import json
import resource
import numpy as np
import torch
from monai.data import MetaTensor
from common.degradations import KSpaceTruncation
from common.runtime import memory
from common.runtime.errors import get_first_line
from common.runtime.memory import keep_freed_memory
from common.transforms import CheckMemoryd
scan = {"image": MetaTensor(torch.zeros(1, 100, 100, 100), meta={"filename_or_obj": "scan.nii.gz"})}
check = CheckMemoryd("image", KSpaceTruncation((2, 2, 2)), torch.device("cpu"))
def said():
    try:
        check(scan)
    except ValueError as error:
        return str(error)
def allow(mib):
    limit = int(open("/proc/self/statm").read().split()[0]) * 4096 + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
keep_freed_memory()
found = []
for mib in (200, 80):
    memory.measure_free_memory = lambda device: mib * 2**20
    found.append(said())
allow(80)
for make in (np.ones, torch.ones):  # if a step fails all the same
    try:
        make(2**28)
    except Exception as error:
        found.append(get_first_line(error))
print(json.dumps(found))
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux limits the memory of a process so")
def test_a_scan_whose_result_does_not_fit_is_refused_by_name():
    """Four times 30 MiB."""
    said = json.loads(
        subprocess.check_output([sys.executable, "-c", LIMITED], cwd=Path(__file__).parents[2], text=True)
    )
    assert said[0] is None and "scan.nii.gz: its result of 200 x 200 x 200 voxels takes at least 0.1 GiB" in said[1]
    assert len(said) == 4 and all("too little memory" in text for text in said[2:])
