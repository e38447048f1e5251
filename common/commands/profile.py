"""``python -m common profile``: what a bundle's network costs."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from torch.utils.flop_counter import FlopCounterMode

from .. import progress
from ..networks.slab import to_channels_last


def profile(bundle: str, slab: int = 64, volume: tuple[int, int, int] = (160, 160, 128), **override) -> None:
    """Print parameters, multiply-adds on the network's input and seconds for a volume (Liu et al. 2023, table II).

    The networks have the sizes of the bundle's train.json, and their input is that of its metadata.json; weights do not
    matter. With ``further_networks`` in metadata.json, ``{"<what they are>": ["<key of train.json>", ...]}``, the
    parameters are also given together with theirs.

    Args:
        bundle: folder of the bundle, for example bundles/udean.
        slab: edge in pixels of the input on which multiply-adds are counted.
        volume: LR voxels of the volume that is timed, (H, W, D).
        override: keys of train.json to set, for example --features 32.

    Raises:
        FileNotFoundError: when the bundle has no configs/train.json.
        ValueError: when the config lacks network_def, an override's key is unknown, or volume is not three sizes.
    """
    path = Path(bundle) / "configs" / "train.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; --bundle names the folder of a bundle.")
    sizes = tuple(int(n) for n in volume)
    if len(sizes) != 3:
        raise ValueError(f"--volume is {volume}, expected three sizes such as 160,160,128.")
    parser = ConfigParser()
    parser.read_config(str(path))
    parser.read_meta(str(path.with_name("metadata.json")))
    unknown = [key for key in (*override, "network_def", "inferer", "device") if key not in parser]
    if unknown:
        raise ValueError(f"{path} has no key {', '.join(unknown)}.")
    parser.update(override)
    parser["bundle_root"] = bundle
    device = parser.get_parsed_content("device")
    network = to_channels_last(parser.get_parsed_content("network_def"), device).eval()
    inferer = parser.get_parsed_content("inferer")
    image = parser["_meta_#network_data_format#inputs#image"]
    shape = [image["num_channels"], *(slab if size == "n" else size for size in image["spatial_shape"])]

    def count(*modules: torch.nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    rows = [("parameters", f"{count(network):,}")]
    for label, keys in (parser["_meta_"].get("further_networks") or {}).items():
        further = [parser.get_parsed_content(key) for key in keys]
        rows.append((f"  with {label}", f"{count(network, *further):,}"))
    with torch.no_grad():
        example = torch.rand(1, *shape, device=device)
        with FlopCounterMode(display=False) as counter:
            network(example)
        rows.append(
            (f"multiply-adds on {'x'.join(str(n) for n in shape[1:])}", f"{counter.get_total_flops() / 2e9:.3f} G")
        )
        volumes = [torch.rand(1, 1, *sizes, device=device)]
        if shape[0] > 1:  # the other channel is a guide
            volumes.append(torch.rand(1, 1, *inferer.guide_shape(sizes), device=device))
        network(example)  # the first call compiles and allocates
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        with progress.shown(1, "volumes"):
            inferer(volumes[0], network, *volumes[1:])
        if device.type == "cuda":
            torch.cuda.synchronize()
        rows.append((f"seconds for {'x'.join(str(n) for n in sizes)}", f"{time.perf_counter() - start:.2f}"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    rows.append(("device", f"{name}, torch {torch.__version__}"))
    width = max(len(label) for label, _ in rows)
    print("\n".join(f"{label:<{width}}  {value}" for label, value in rows))
