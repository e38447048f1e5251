"""Whether the network of an exported bundle takes its weights, by the bundle's own code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from ...weights.loading import load_weights

CONFIG = "configs/inference.json"
N = 17  # the free size "n" in metadata.json; odd, because some networks pad odd sizes


def check_network(bundle: Path) -> None:
    """Load models/model.pt of a bundle in a new process, and compare the output's shape with metadata.json.

    Further weights in models are loaded with their overlays. The process runs in the bundle's folder.

    Raises:
        ValueError: if weights do not fit, or the output is not as in metadata.json.
    """
    path = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import _check; _check()"],
        cwd=bundle,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        error = re.split(r"^(?=\S*Error: )", done.stderr.strip(), flags=re.MULTILINE)[-1]
        raise ValueError(error.removeprefix("ValueError: ") or f"exit status {done.returncode}")


def _check() -> None:
    """Do the work of :func:`check_network` in the bundle's folder."""
    for overlay in sorted(Path("models").glob("model_*.json")):
        _load_network([CONFIG, str(overlay)], overlay.with_suffix(".pt"))
    parser, network = _load_network([CONFIG], Path("models/model.pt"))
    parser.read_meta("configs/metadata.json")
    formats = (parser[f"_meta_#network_data_format#{key}"] for key in ("inputs#image", "outputs#pred"))
    image, expected = map(_compute_shape, formats)
    with torch.no_grad():
        result = list(network(torch.rand(image)).shape)
    if result != expected:
        raise ValueError(
            f"configs/metadata.json: network_data_format says that an image {image} becomes {expected}, "
            f"but the network makes it {result}; correct metadata.json, or the network's sizes."
        )


def _load_network(configs: list[str], weights: Path) -> tuple[ConfigParser, nn.Module]:
    """Load the network of configs with its weights."""
    parser = ConfigParser()
    parser.read_config(configs)
    network, digest, degradation = map(parser.get_parsed_content, ("network_def", "digest", "degradation"))
    return parser, load_weights(network, weights, digest=digest, degradation=degradation)


def _compute_shape(tensor: Mapping[str, Any]) -> list[int]:
    """Shape of a tensor of metadata.json, in a batch of one."""
    return [1, tensor["num_channels"], *(eval(str(size), {"n": N}) for size in tensor["spatial_shape"])]
