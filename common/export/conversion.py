"""The network of an exported bundle as TorchScript, compared with eager mode."""

from __future__ import annotations

import logging
import os
import re
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ckpt_export
from torch import nn

from ..io.writing import write_atomically
from ..weights import load_weights

TOLERANCE = 1e-4  # of values in [0, 1]
SIZES = ((1, 32, 32), (2, 17, 24), (1, 5, 40))  # batch and plane


def convert_weights(bundle: Path) -> str:
    """Convert models/model.pt of a bundle to models/model.ts, in a new process.

    The overlay models/model.json describes both files. Further weights in models are loaded once with their
    overlays, as a check. The process runs in the bundle's folder, so the bundle's own code is converted. TorchScript
    depends on earlier compilations in a process and on the hash seed, which is fixed: the same network gives the same
    bytes.

    Returns:
        A line with the largest difference from eager mode.

    Raises:
        ValueError: if the weights do not fit, the network's output is not as in metadata.json, or TorchScript differs
            from eager mode by more than 1e-4 on one of three shapes.
    """
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import _run_conversion; _run_conversion()"],
        cwd=bundle,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        error = re.split(r"^(?=\S*Error: )", done.stderr.strip(), flags=re.MULTILINE)[-1]
        raise ValueError(error.removeprefix("ValueError: ") or f"exit status {done.returncode}")
    return done.stdout.splitlines()[-1]


def _run_conversion() -> None:
    sys.path.insert(0, "")  # the bundle's folder, for the modules in its configs
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print(_convert_files())  # MONAI prints to stdout too; only the last line is read


def _convert_files() -> str:
    """Do the work of :func:`convert_weights` in the bundle's folder."""
    config, meta, weights = "configs/inference.json", "configs/metadata.json", Path("models/model.pt")
    for overlay in sorted(Path("models").glob("model_*.json")):
        _load_network([config, str(overlay)], overlay.with_suffix(".pt"))
    parser, network = _load_network([config], weights)
    parser.read_meta(meta)
    inputs = {shape: torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in _list_shapes(parser)}
    choices = list(product(*_list_further_inputs(network).values()))
    with torch.no_grad():
        eager = [(x, choice, network(x, *choice)) for x in inputs.values() for choice in choices]
    for x, _, result in eager:
        _check_shape(parser, x, result)

    ckpt_export("network_def", "models/model.ts", ckpt_file=str(weights), meta_file=meta, config_file=[config])
    _strip_torchscript(Path("models/model.ts"))
    scripted = torch.jit.load("models/model.ts").eval()
    with torch.no_grad():
        difference = max((scripted(x, *choice) - result).abs().max().item() for x, choice, result in eager)
    if not difference <= TOLERANCE:
        raise ValueError(f"model.ts differs from eager mode by {difference:.2g}, more than {TOLERANCE}.")
    return f"model.ts differs from eager mode by {difference:.2g} at most, on {len(inputs)} shapes"


def _load_network(configs: Sequence[str], weights: Path) -> tuple[ConfigParser, nn.Module]:
    """Load the network of configs with its weights."""
    parser = ConfigParser()
    parser.read_config(configs)
    network, digest, degradation = map(parser.get_parsed_content, ("network_def", "digest", "degradation"))
    return parser, load_weights(network, weights, digest=digest, degradation=degradation)


def _list_further_inputs(network: Any) -> Mapping[str, Sequence[int]]:
    """Further inputs of a network besides the image, in order, with their possible values."""
    return network.list_further_inputs() if hasattr(network, "list_further_inputs") else {}


def _read_format(parser: ConfigParser, key: str) -> tuple[int, list]:
    """Channels and spatial shape of a tensor in metadata.json; "n" is a free size."""
    tensor = parser[f"_meta_#network_data_format#{key}"]
    return tensor["num_channels"], tensor["spatial_shape"]


def _list_shapes(parser: ConfigParser) -> list[tuple[int, ...]]:
    channels, spatial = _read_format(parser, "inputs#image")
    shapes = []
    for batch, *plane in SIZES:
        free = iter(plane)
        shapes.append((batch, channels, *(next(free) if size == "n" else size for size in spatial)))
    return shapes


def _check_shape(parser: ConfigParser, image: torch.Tensor, result: torch.Tensor) -> None:
    """Refuse a network whose output shape differs from metadata.json."""
    _, spatial = _read_format(parser, "inputs#image")
    channels, declared = _read_format(parser, "outputs#pred")
    expected = [image.shape[0], channels]
    for size, name, formula in zip(image.shape[2:], spatial, declared, strict=True):
        expected.append(eval(str(formula), {"n": size}) if name == "n" else int(formula))
    if list(result.shape) != expected:
        raise ValueError(
            f"configs/metadata.json: network_data_format says that an image {list(image.shape)} becomes {expected}, "
            f"but the network makes it {list(result.shape)}; correct metadata.json, or the network's sizes."
        )


def _strip_torchscript(path: Path) -> None:
    """Remove source paths of the exporting machine, and the serialization id."""
    with write_atomically(path) as temporary:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(temporary, "w") as target:
            for member in source.infolist():
                if member.filename.endswith((".debug_pkl", "/.data/serialization_id")):
                    continue
                info = zipfile.ZipInfo(member.filename)
                # Tensors begin at multiples of 64 bytes, as torch writes them.
                padding = -(target.fp.tell() + 30 + len(member.filename.encode()) + 4) % 64  # type: ignore[union-attr]
                info.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
                target.writestr(info, source.read(member))
