"""The loaders against themselves at an earlier revision: ``python -m tests.benchmarks.loaders --revision 884080b``.

A batch of each at the sizes of its train.json, from random volumes in which the outermost sixth along each axis is air.
On a GPU the volumes lie where their VolumeCache puts them. Both take turns, each in processes of its own with the code
and configs of its revision, and the least of the medians counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from monai.bundle import ConfigParser

from .common_parts import HERE, command, device_name, in_own_process, seconds, tree_of, use_tree

HR, LR, IN_PLANE, THICK = (176, 208, 160), (88, 104, 80), (88, 104, 160), (176, 208, 32)  # voxels
# Of each loader: the bundle, the config's section, and the volumes that its parts read.
LOADERS = {
    "udean": ("udean", "train", {"dataset": {"hr": HR, "hr_band": HR}, "target_dataset": {"lr": LR}}),
    "guided_rdn": ("guided_rdn", "train", {"dataset": {"hr": HR, "guide": HR}}),
    "downsampling_gan": ("downsampling_gan", "train", {"dataset": {"hr": HR}}),
    "its kernels": ("downsampling_gan", "estimation", {"source": {"hr": HR}, "target": {"lr": IN_PLANE}}),
    "ct_guided": ("ct_guided", "train", {"source": {"hr": HR}, "dataset": {"lr": THICK}}),
    "srcnn": ("srcnn", "train", {"dataset": {"hr": HR, "lr": IN_PLANE}}),
}


def volume(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Noise with air around it."""
    tissue = torch.zeros(1, *shape)
    inner = [(n // 6, n - n // 6) for n in shape]
    block = tissue[:, slice(*inner[0]), slice(*inner[1]), slice(*inner[2])]
    block.copy_(torch.rand(block.shape, generator=torch.Generator().manual_seed(seed)))
    return tissue


def batches(name: str, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
    """Those of a loader, as the configs in the working directory have it."""
    from common.data import VolumeCache

    bundle, section, parts = LOADERS[name]
    config = ConfigParser(ConfigParser.load_config_files([f"bundles/{bundle}/configs/train.json"]))
    config.update({"device": device, "kernels": torch.rand(30, 13, 13), "noise_levels": [0.01, 0.02]})
    for part, shapes in parts.items():
        config[section][part] = VolumeCache(
            [{"i": i} for i in range(3)],
            lambda entry, shapes=shapes: {key: volume(shape, entry["i"]) for key, shape in shapes.items()},
            list(shapes),
            device if "device" in config[section][part] else "cpu",
        )
    with contextlib.redirect_stdout(None):  # what is said of kernels that noise cannot give
        return iter(config.get_parsed_content(f"{section}#dataloader"))


def measure(tree: str, repeats: int) -> dict[str, float]:
    """Seconds a batch of every loader of a tree of the project's files."""
    use_tree(tree)
    from common import memory

    memory.keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    taken = {}
    for name in LOADERS:
        source = batches(name, device)
        taken[name] = seconds(lambda source=source: next(source), repeats)
    return taken


def main(revision: str = "884080b", repeats: int = 20, rounds: int = 3) -> None:
    """Print milliseconds a batch, and how many times as fast it comes as at the revision.

    Args:
        revision: of this repository, which is compared.
        repeats: batches of which the median is taken.
        rounds: how often both are measured.
    """
    print(f"loaders against revision {revision}, {device_name()}, torch {torch.__version__}")
    with tree_of(revision) as folder:
        trees = [tree for _ in range(rounds) for tree in (folder, str(HERE))]
        times = [in_own_process(measure, tree, repeats) for tree in trees]
    for name in LOADERS:
        before, now = (min(taken[name] for taken in times[i::2]) * 1e3 for i in (0, 1))
        print(f"{name:>16}{before:9.2f} ms ->{now:8.2f} ms  ratio {before / now:5.1f}")


if __name__ == "__main__":
    command(main)
