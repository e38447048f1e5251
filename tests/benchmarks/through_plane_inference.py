"""Seconds and memory of thick slices made thin: ``python -m tests.benchmarks.through_plane_inference``.

The volume is random, the network untrained, at the sizes of inference.json. The baseline is the same network over the
same images one by one, in float32 and torch's default memory format, without the inferer. The time is that of all the
images: each costs the same, so that a sixteenth of a volume's images is a sixteenth of its time:
``--shape 16,256,44 --planes "[0]"`` is a 32nd of 256x256x44.
"""

from __future__ import annotations

import fire
import torch
from monai.bundle import ConfigParser

from common.memory import keep_freed_memory
from common.networks.slab import to_channels_last

from .common_parts import device_name, in_own_process, peak_gib, seconds


def parts(shape: tuple, override: dict) -> tuple:
    """Network, inferer and a random scan."""
    torch.manual_seed(0)
    config = ConfigParser()
    config.read_config("bundles/ct_guided/configs/inference.json")
    config.update(override)
    device = config.get_parsed_content("device")
    network = config.get_parsed_content("network_def").to(device).eval()
    return network, config.get_parsed_content("inferer"), torch.rand(1, 1, *shape, device=device)


def ours(shape: tuple, override: dict, repeats: int) -> tuple[float, float]:
    """Seconds a volume of the bundle's inferer, and peak GiB."""
    network, inferer, scan = parts(shape, override)
    network = to_channels_last(network, scan.device)  # as load_weights does
    keep_freed_memory()  # as the evaluator does on a CPU
    with torch.no_grad():
        return seconds(lambda: inferer(scan, network), repeats), peak_gib()


def plain(shape: tuple, override: dict, repeats: int) -> tuple[float, float]:
    """The same of a plain loop over images."""
    network, _, scan = parts(shape, override)

    def volume() -> torch.Tensor:
        results = []
        for axis in override.get("planes", [0, 1]):
            images = [network(image) for image in scan.unbind(2 + axis)]
            results.append(torch.stack(images, dim=2 + axis))
        return sum(results) / len(results)

    with torch.no_grad():
        return seconds(volume, repeats), peak_gib()


def main(shape: tuple = (256, 256, 44), repeats: int = 1, baseline: bool = True, **override) -> None:
    """Print seconds a volume, the ratio, and peak memory.

    Args:
        shape: voxels of the thick-slice scan, slices last.
        repeats: volumes of which the median is taken, after one that is not counted.
        baseline: whether to measure the plain loop too.
        override: keys of inference.json, for example --amp True.
    """
    own, memory = in_own_process(ours, tuple(shape), override, repeats)
    scan = "x".join(map(str, shape))
    print(f"{scan} thick slices, {override or 'as shipped'}, {device_name()}, torch {torch.__version__}")
    print(f"OrthogonalInferer {own:9.2f} s  {memory:6.2f} GiB")
    if baseline:
        base, base_memory = in_own_process(plain, tuple(shape), override, repeats)
        print(f"plain loop        {base:9.2f} s  {base_memory:6.2f} GiB  ratio {own / base:.3f}")


if __name__ == "__main__":
    fire.Fire(main)
