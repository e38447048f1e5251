"""Inference of a volume against slab-by-slab calls: ``python -m tests.benchmarks.inference``.

With ``--revision 884080b`` also against the SlabInferer of that revision, in turns; the least of the medians counts.

The baseline calls the network in torch's default memory format once a slab, in float32, and writes the slices nearest
to the slab's centre into the volume. Weights are random: they do not change the time; with ``--checkpoint`` and
``--volume_file`` the difference that bfloat16 makes is that of a trained network on a real volume.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from .common_parts import HERE, command, device_name, in_own_process, parser, peak_gib, seconds, tree_of, use_tree

if TYPE_CHECKING:
    from common.inferers import SlabInferer


def network(override: dict, checkpoint: str | None) -> torch.nn.Module:
    """The bundle's network, with random weights in its last layer where there is no checkpoint."""
    from common.handlers import load_weights

    torch.manual_seed(0)
    config = parser(**override)
    device = config.get_parsed_content("device")
    net = config.get_parsed_content("network_def").to(device).eval()
    if checkpoint:
        return load_weights(net, checkpoint, device).to(memory_format=torch.contiguous_format)
    torch.nn.init.normal_(net.decoder.tail.weight, std=0.01)
    return net


def volume(shape: tuple, path: str | None, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """An LR volume, and HR where it is made from a file."""
    if path is None:
        return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)).to(device), None
    import nibabel as nib

    from common.degradations import KSpaceTruncation

    hr = nib.load(path).get_fdata(dtype=np.float32)
    hr = torch.from_numpy(hr / np.quantile(hr, 0.999))
    hr = hr[tuple(slice(n // 2 * 2) for n in hr.shape)]
    return KSpaceTruncation((2, 2, 2))(hr)[None, None].to(device), hr


@torch.no_grad()
def baseline(lr: torch.Tensor, net: torch.nn.Module, inferer: SlabInferer) -> torch.Tensor:
    """Slab by slab, default memory format."""
    from common.networks.slab import channels_to_slab, slab_to_channels

    sx, sy, sz = inferer.scale
    depth = lr.shape[-1]
    out = torch.zeros(1, 1, sx * lr.shape[2], sy * lr.shape[3], sz * depth, device=lr.device)
    padded = torch.cat([lr[..., :1], lr, lr[..., -1:]], dim=-1)
    total = torch.zeros(sz * depth, device=lr.device)
    for z in range(depth):
        slices = slab_to_channels(padded[..., z : z + 3]).contiguous()
        result = net(channels_to_slab(slices))
        for o, weight in enumerate(inferer.weights):
            at = (z - 1) * sz + o
            if weight and 0 <= at < sz * depth:
                out[..., at] += weight * result[..., o]
                total[at] += weight
    return out / total


def measure(which: str, tree: str, shape: tuple, override: dict, checkpoint, path, repeats: int) -> tuple:
    """Seconds, peak GiB, and the result, by the code and configs of a tree of the project's files."""
    use_tree(tree)
    from common.networks.slab import to_channels_last

    with torch.no_grad():
        net = network(override, checkpoint)
        config = parser(**override)
        device = config.get_parsed_content("device")
        lr, _ = volume(shape, path, device)
        inferer = config.get_parsed_content("slab_inferer")
        if which == "baseline":
            call = lambda: baseline(lr, net, inferer)  # noqa: E731
        else:
            net = to_channels_last(net, device)
            inferer.amp, inferer.amp_kwargs = which == "bf16", {"dtype": torch.bfloat16}
            call = lambda: inferer(lr, net)  # noqa: E731
        taken = seconds(call, repeats)
        return taken, peak_gib(), call().cpu().numpy()


def main(
    shape=(160, 160, 128),
    repeats: int = 1,
    checkpoint: str | None = None,
    volume_file: str | None = None,
    revision: str | None = None,
    rounds: int = 3,
    **sizes,
):
    """Print seconds, ratios, largest differences and peak memory.

    Args:
        shape: LR voxels of the volume.
        repeats: runs of which the median is taken, after one that is not counted.
        checkpoint: weights of network_def, or None for random ones.
        volume_file: HR NIfTI that is degraded 2x2x2 in the random volume's place; PSNR is then against it.
        revision: of this repository, whose float32 inference is measured too.
        rounds: how often both are measured, where there is a revision.
        sizes: overrides of train.json, for example --features 32.
    """
    options = tuple(shape), dict(sizes), checkpoint, volume_file, repeats
    with tree_of(revision) if revision else contextlib.nullcontext() as before:
        runs = [("baseline", HERE), ("bf16", HERE)]
        runs += [("fp32", HERE)] if before is None else [("fp32", before), ("fp32", HERE)] * rounds
        results: dict[str, tuple] = {}
        for which, tree in runs:
            name = which if tree is HERE else revision
            found = in_own_process(measure, which, str(tree), *options)
            results[name] = min(results.get(name, found), found, key=lambda result: result[0])
    base, _, reference = results["baseline"]
    shown = "x".join(str(n) for n in shape) if volume_file is None else volume_file
    print(f"inference, {shown}, {device_name()}, torch {torch.__version__}")
    hr = volume(tuple(shape), volume_file, torch.device("cpu"))[1]
    for name, (taken, memory, result) in results.items():
        line = f"{name:9}{taken:9.2f} s  {memory:6.2f} GiB  ratio {taken / base:.3f}"
        line += f"  largest difference {np.abs(result - reference).max():.1e}"
        if hr is not None:
            from common.metrics import psnr

            line += f"  PSNR {psnr(torch.from_numpy(result).clamp(0, 1), hr.clamp(0, 1)):.3f} dB"
        print(line)


if __name__ == "__main__":
    command(main)
