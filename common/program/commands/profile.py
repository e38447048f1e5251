"""``python -m common profile``: measure what the networks of bundles cost."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode

from ...reports.files import align_columns
from ...runtime.memory import to_channels_last
from ...runtime.progress import make_bar
from ...runtime.unknown_keys import has_key, suggest_key
from ...runtime.values import check_whole_numbers
from ...start import check_device


def profile_bundle(
    bundle: str,
    slab: int = 64,
    volume: tuple[int, int, int] = (160, 160, 128),
    repeats: int = 1,
    device: str | None = None,
    **override,
) -> None:
    """Print parameters, multiply-adds on the network's input and seconds for a volume (Liu et al. 2023, table II).

    The networks have the sizes of their bundle's train.json, and the input of its metadata.json. Weights do not change
    the cost. Training on each scan before inference, which some methods do, is not timed.

    Args:
        bundle: folder of the bundle, for example bundles/udean, or of several, separated by commas.
        slab: edge in pixels of the input on which multiply-adds are counted.
        volume: LR voxels of the timed volume, (H, W, D).
        repeats: number of timed runs; with 2 or more the seconds are mean +- standard deviation.
        device: where they run, for example cpu; default the first GPU, if there is one.
        override: keys of train.json to set, for example --features 32; a bundle without this key ignores it.

    Raises:
        FileNotFoundError: when a bundle has no configs/train.json.
        ValueError: when a config lacks network_def, no bundle has an override's key, or volume is not three sizes.
    """
    sizes = tuple(int(n) for n in volume)
    if len(sizes) != 3:
        raise ValueError(f"--volume is {volume}, expected three sizes such as 160,160,128.")
    check_whole_numbers(slab=slab, repeats=repeats)
    if device is not None:
        check_device(device)
    folders = [Path(folder.strip()) for folder in (bundle.split(",") if isinstance(bundle, str) else bundle)]
    parsers = [_load_config(folder) for folder in folders]
    for key in override:
        if not any(has_key(parser.get(), key) for parser in parsers):
            contents = [parser.get() for parser in parsers]
            raise ValueError(f"--{key}: no train.json of {bundle} has such a key{suggest_key(key, contents)}")
    head = ["bundle", "parameters", "multiply-adds", "on", f"seconds for {'x'.join(str(n) for n in sizes)}"]
    lines = [head]
    for parser in make_bar(parsers, "measuring", unit="bundle"):
        if device is not None:
            parser["device"] = torch.device(device)
        parser.update({key: value for key, value in override.items() if has_key(parser.get(), key)})
        lines.append(_measure_bundle(parser, slab, sizes, repeats))
    used = parsers[0].get_parsed_content("device")
    name = torch.cuda.get_device_name(used) if used.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(align_columns(lines))
    print(f"{name}, torch {torch.__version__}")


def _load_config(folder: Path) -> ConfigParser:
    """Return a bundle's train.json and metadata.json."""
    path = folder / "configs" / "train.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; --bundle names the folder of a bundle.")
    parser = ConfigParser()
    parser.read_config(str(path))
    parser.read_meta(str(path.with_name("metadata.json")))
    missing = [key for key in ("network_def", "train#inferer", "device") if key not in parser]
    if missing:
        raise ValueError(f"{path} has no key {', '.join(missing)}.")
    parser["bundle_root"] = str(folder)
    return parser


def _measure_bundle(parser: ConfigParser, slab: int, sizes: tuple[int, ...], repeats: int) -> list[str]:
    """A bundle's line of the table."""
    device = parser.get_parsed_content("device")
    network = to_channels_last(parser.get_parsed_content("network_def"), device).eval()
    inferer = parser.get_parsed_content("train#inferer")
    image = parser["_meta_#network_data_format#inputs#image"]
    channels = image["num_channels"]
    if "guided" in parser and not parser.get_parsed_content("guided"):
        channels = 1
    shape = [channels, *(slab if size == "n" else size for size in image["spatial_shape"])]

    volumes = [torch.rand(1, 1, *sizes, device=device)]
    if hasattr(inferer, "compute_guide_shape") and shape[0] > 1:
        volumes.append(torch.rand(1, 1, *inferer.compute_guide_shape(sizes), device=device))
    seconds = []
    with torch.no_grad():
        example = torch.rand(1, *shape, device=device)
        with FlopCounterMode(display=False) as counter:
            network(example)
        network(example)  # the first call compiles and allocates
        for _ in range(repeats):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            inferer(volumes[0], network, *volumes[1:])
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    spread = f" +- {np.std(seconds, ddof=1):.2f}" if repeats > 1 else ""
    return [
        Path(parser["bundle_root"]).name,
        f"{sum(p.numel() for p in network.parameters()):,}",
        f"{counter.get_total_flops() / 2e9:.3f} G",
        "x".join(str(n) for n in shape[1:]),
        f"{np.mean(seconds):.2f}{spread}",
    ]
