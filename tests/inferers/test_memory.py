"""How much memory the inferers take beside the network, in bytes per voxel of the result."""

import json
import os
import subprocess
import sys

MEASURE = """
import json
import re
import torch
from common.degradations import KSpaceTruncation, k_space
from common.inferers import AxesInferer, CascadeInferer, ConsistentInferer, OrthogonalInferer, SlabInferer
k_space._AT_ONCE = 2**16  # as small beside the volume as it is beside one that fills the memory
def size(key):
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(rf"{key}:\\s+(\\d+)", file.read())[1])
@torch.no_grad()
def per_voxel(inferer, shape, network):
    inferer(torch.rand(1, 1, 16, 16, 16), network)  # what is loaded and planned once
    volume = torch.rand(1, 1, *shape)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest size is counted from here
    before = size("VmRSS")
    voxels = inferer(volume, network).numel()
    return (size("VmHWM") - before) / voxels
def twice(slab):
    return slab.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
slabs = AxesInferer(SlabInferer(KSpaceTruncation((2, 2, 2)), 3))
print(json.dumps({
    "axes": per_voxel(slabs, (80, 80, 80), twice),
    "consistent": per_voxel(ConsistentInferer(slabs, KSpaceTruncation((2, 2, 2)), 2), (80, 80, 80), twice),
    "orthogonal": per_voxel(OrthogonalInferer(), (160, 160, 40), lambda image: image.repeat_interleave(4, 3)),
    "cascade": per_voxel(CascadeInferer(2), (80, 80, 160), lambda image, stage: image),
}))
"""
# A volume of float32 takes 4: two and a half of them, three and a half, three, three, and an eighth
# for what is small; slabs in work are small beside a scan, but not beside this volume.
BOUNDS = {"axes": 10.5, "consistent": 15.5, "orthogonal": 13.5, "cascade": 13.5}


def test_the_peak_of_each_in_a_process_of_its_own():
    # Every tensor in pages of its own, which go back when it is freed: what is in use is what is counted.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured.keys() == BOUNDS.keys() and all(measured[name] < BOUNDS[name] for name in BOUNDS), measured
