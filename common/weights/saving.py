"""Writing weights ``model.pt`` with their overlay ``model.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..io.files import find_shipped, format_json, load_state
from ..io.writing import write_atomically
from ..runtime.distributed import get_rank
from ..runtime.machine import name_machine
from .loading import compute_digest, convert_to_plain, explain_no_overlay, read_overlay


class SavedWeights:
    """Writes a network's weights, and next to each file the overlay that describes them.

    The overlay is a config. Laid over train.json, evaluate.json or inference.json, it sets the sizes that the weights
    need, their ``checkpoint`` and the ``digest`` of their tensors. Its key ``trained`` says where they come from.

    Args:
        network: the network; its ``state_dict`` is written.
        paths: the files to write; all get the same content.
        sizes: values of config keys that these weights need, in addition to the network's attribute ``sizes``, if it
            has one. JSON must be able to hold them.
        offset: centre of LR voxel 0 in HR voxels along each axis; None if it does not matter.
        bundle_root: folder of the bundle.
        precision: type of numbers in training, such as "bfloat16".
        training_range: of the statistics of the scans in training, see :class:`common.transforms.CheckTrainingRanged`;
            empty if unknown.
    """

    def __init__(
        self,
        network: nn.Module,
        paths: Sequence[str | os.PathLike],
        sizes: Mapping[str, Any],
        offset: Sequence[float] | None = None,
        bundle_root: str | os.PathLike = ".",
        precision: str = "float32",
        training_range: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.network, self.precision = network, precision
        self.paths = [Path(path) for path in paths]
        self.sizes = convert_to_plain({**getattr(network, "sizes", {}), **sizes})
        self.offset = convert_to_plain(offset)
        self.bundle_root = find_shipped(bundle_root)
        self.training_range = {"training_range": training_range} if training_range else {}

    def save(self, iteration: int | None = None, **metrics: float) -> None:
        """Write the present weights to the files.

        Args:
            iteration: iteration of the training, from 0; None if unknown.
            metrics: validation metrics of these weights by name.
        """
        state = self.network.state_dict()
        metadata = self.bundle_root / "configs" / "metadata.json"
        trained = {
            "bundle": self.bundle_root.resolve().name,
            "version": json.loads(metadata.read_text())["version"] if metadata.is_file() else None,
            "network": type(self.network).__name__,
            "offset": self.offset,
            "precision": self.precision,
            "seed": torch.initial_seed(),
            "machine": name_machine(next(iter(state.values())).device),
            **({} if iteration is None else {"iteration": iteration, **metrics}),
        }
        known = {"digest": compute_digest(state), "trained": trained, **self.sizes, **self.training_range}
        for path in self.paths:
            write_weights(state, path, {"checkpoint": str(path.absolute()), **known})


def write_weights(state: Mapping[str, torch.Tensor], path: Path, overlay: Mapping[str, Any]) -> None:
    """Write weights and their overlay. Each file is written whole, or stays as it was.

    Args:
        state: tensors by name.
        path: file of the weights.
        overlay: keys and values of the overlay.
    """
    with write_atomically(path) as temporary, write_atomically(path.with_suffix(".json")) as beside:
        beside.write_text(_format_overlay(overlay))
        with temporary.open("wb") as file:
            torch.save(state, file)
            os.fsync(file.fileno())


def average_weights(initial: str | os.PathLike | None, trained: str | os.PathLike) -> None:
    """Replace trained weights by their mean with those that the training started from, once.

    Their errors partly cancel, so the mean keeps what the start knew and gains most of what was learned. The overlay
    loses the validation metrics, which are of the trained weights. Of several processes, the first does it.

    Args:
        initial: file of the weights that the training started from; None does nothing.
        trained: file of the trained weights, with their overlay; both are replaced.

    Raises:
        FileNotFoundError: no overlay of the trained weights.
        ValueError: the tensors of the two files differ in names or shapes.

    Source:
        Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", with a mixing coefficient of 1/2.
    """
    if initial is None or get_rank()[0]:
        return
    path, overlay = Path(trained), read_overlay(trained)
    if overlay is None:
        raise FileNotFoundError(explain_no_overlay(path))
    if "averaged_with" in overlay["trained"]:
        return
    start, end = load_state(Path(initial), "cpu"), load_state(path, "cpu")
    if {name: tensor.shape for name, tensor in start.items()} != {name: tensor.shape for name, tensor in end.items()}:
        raise ValueError(f"{initial}: these are not the weights that {path} were trained from: the networks differ.")
    mean = {
        name: torch.lerp(start[name], tensor, 0.5) if tensor.is_floating_point() else tensor
        for name, tensor in end.items()
    }
    about = {name: value for name, value in overlay["trained"].items() if not isinstance(value, float)}
    digest, about["averaged_with"] = compute_digest(mean), compute_digest(start)
    write_weights(mean, path, overlay | {"digest": digest, "trained": about})
    print(f"{path}: now the mean with {initial}, digest {digest}", flush=True)


def write_overlay(path: str | os.PathLike, overlay: Mapping[str, Any]) -> None:
    """Write the overlay of existing weights. The file is written whole, or stays as it was.

    Args:
        path: file of the weights.
        overlay: keys and values of the overlay.
    """
    with write_atomically(Path(path).with_suffix(".json")) as beside:
        beside.write_text(_format_overlay(overlay))


def _format_overlay(overlay: Mapping[str, Any]) -> str:
    return format_json(overlay, indent=4) + "\n"
