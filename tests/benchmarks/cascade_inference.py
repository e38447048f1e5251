"""Guided inference of a volume against plain slice-by-slice calls: ``python -m tests.benchmarks.cascade_inference``.

The baseline is the same cascade with its plain networks, batch norm and default memory format, called one slice at a
time in float32. Against it is what evaluation and inference do: the networks as prepare_for_inference makes them, and
freed memory kept, in float32 and bfloat16, with as many slices at a time as train.json has for the device. Weights and
statistics are random: they do not change the time.
"""

from __future__ import annotations

import time

import fire
import numpy as np
import torch
from monai.inferers import SlidingWindowInferer

from common.memory import keep_freed_memory
from common.networks import prepare_for_inference

from .common_parts import device_name, in_own_process, parser, peak_gib, synchronize


def measure(which: str, shape: tuple, override: dict) -> tuple[float, float, np.ndarray]:
    """Seconds, peak GiB, and the result."""
    torch.manual_seed(0)
    config = parser(bundle="guided_rdn", **override)
    device = config.get_parsed_content("device")
    network, inferer = config.get_parsed_content("network_def"), config.get_parsed_content("inferer")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    for stage in network.stages:
        torch.nn.init.normal_(stage.tail.weight, std=0.01)
    network.to(device).eval()
    inferer.amp, inferer.amp_kwargs = which == "bf16", {"dtype": torch.bfloat16}
    scale = config.get_parsed_content("scale")[0]
    x, y, z = shape
    lr, guide = torch.rand(1, 1, x // scale, y // scale, z, device=device), torch.rand(1, 1, *shape, device=device)
    if which == "baseline":
        inferer.slices = SlidingWindowInferer(roi_size=[-1, -1, 1], overlap=0)
    else:
        network = prepare_for_inference(network)
        keep_freed_memory()
    with torch.no_grad():
        inferer(lr[..., :2], network, guide[..., :2])  # the first call allocates
        synchronize()
        start = time.perf_counter()
        result = inferer(lr, network, guide)
        synchronize()
        return time.perf_counter() - start, peak_gib(), result.cpu().numpy()


def main(shape: tuple = (256, 256, 176), scale: int = 4, **override) -> None:
    """Print seconds, ratios, largest differences and peak memory.

    Args:
        shape: voxels of the result.
        scale: in-plane factor.
        override: of train.json, for example --cascade 1.
    """
    results = {
        which: in_own_process(measure, which, tuple(shape), {"scale": [scale, scale, 1], **override})
        for which in ("baseline", "fp32", "bf16")
    }
    base, _, reference = results["baseline"]
    print(f"guided inference, {'x'.join(map(str, shape))}, {scale}x, {device_name()}, torch {torch.__version__}")
    for which, (taken, memory, result) in results.items():
        difference = np.abs(result - reference).max()
        print(
            f"{which:9}{taken:9.2f} s  {memory:6.2f} GiB  ratio {taken / base:.3f}  largest difference {difference:.1e}"
        )


if __name__ == "__main__":
    fire.Fire(main)
