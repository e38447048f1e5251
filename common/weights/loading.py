"""Weights ``model.pt`` with their overlay ``model.json``, a config that describes them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..degradations.base import Degradation
from ..io.files import find_shipped, load_state, read_json_object
from ..runtime.memory import to_channels_last

_Network = TypeVar("_Network", bound=nn.Module)

# Keys of a training's state, see common.handlers.ResumableState.
STATE = {"iteration", "max_epochs", "epoch_length", "threads", "settings", "graph", "players", "random"}


def read_overlay(path: str | os.PathLike) -> dict[str, Any] | None:
    """Read the overlay next to a file of weights; None if there is none."""
    file = find_shipped(path).with_suffix(".json")
    if not file.is_file():
        return None
    overlay, problem = read_json_object(file)
    if problem := problem or _find_fault(overlay):
        raise ValueError(f"{file}: not a description of weights ({problem}); correct it, get it again, or train again.")
    return overlay


def explain_no_overlay(path: Path) -> str:
    """Message that says what to do if weights have no overlay."""
    return f"There is no {path.stem}.json next to the weights; copy it there, like that of other weights."


def load_weights(
    network: _Network,
    path: str | os.PathLike | None,
    device: torch.device | str = "cpu",
    digest: str | None = None,
    degradation: Degradation | None = None,
    option: str = "checkpoint",
    required: bool = False,
) -> _Network:
    """Load weights into a network, and refuse weights that do not belong to it.

    Args:
        network: the network to load into. Its attribute ``sizes``, if it has one, must agree with the overlay.
        path: file with the network's ``state_dict``, loaded with ``weights_only=True``; None to leave the network as
            it is.
        device: device of the network.
        digest: digest of the tensors in the config; None if the config has none.
        degradation: degradation of the config. Its scale and offset of LR voxels must agree with the overlay.
        option: name of the option that sets the path, for messages.
        required: whether a path is needed, because a method that learns from the scan is to learn nothing.

    Returns:
        The network, on the device, in evaluation mode. Its attribute ``origin`` holds the overlay's ``trained``, and
        ``path``, ``sha256`` and ``file_sha256``, if weights were loaded.
    """
    if path is None:
        if required:
            raise ValueError(
                "iterations is 0 and there are no weights, so the result would only be interpolation: give "
                "--iterations, or add the overlay of weights to --config_file."
            )
        return network.to(device).eval()
    path = find_shipped(path)
    if not path.is_file():
        configs, train = path.parent.parent / "configs", "train the bundle first"
        if (configs / "train.json").is_file():
            run = "python -m monai.bundle run --config_file"
            train += (
                f", by {run} {configs}/train.json --dataset_dir D --output_dir W, then apply it by "
                f"{run} \"['{configs}/inference.json','W/models/model.json']\" --dataset_dir SCANS --output_dir SR"
            )
        raise FileNotFoundError(
            f"there are no weights at {path}; {train}; or, if they were moved, name their file with --{option} PATH."
        )
    overlay = read_overlay(path) or {}
    trained = overlay.get("trained", {})
    if trained.get("network", type(network).__name__) != type(network).__name__:
        raise ValueError(
            f"{path}: expected the weights of a {type(network).__name__}, found weights of a {trained['network']} of "
            f"the bundle {trained.get('bundle')}; name a file of this bundle with --{option} PATH."
        )
    if degradation is not None:
        _check_grid(path, overlay, degradation)
    _check_sizes(path, overlay, getattr(network, "sizes", {}))
    state = load_state(path, device)
    _check_tensors(path, state, network, option, has_overlay=bool(overlay))
    computed = compute_digest(state)
    _check_digest(path, computed, overlay, digest)
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(
            f"{path}: {bad[0]} and {len(bad) - 1} other weights are NaN or infinite; train again, or get a whole file."
        )
    try:
        network.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    file_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    network.origin = {**trained, "sha256": computed, "path": str(path), "file_sha256": file_sha256}  # type: ignore[assignment]
    return to_channels_last(network, device).eval()


def _check_digest(path: str | os.PathLike, computed: str, overlay: Mapping[str, Any], digest: str | None) -> None:
    """Refuse weights whose digest is not that of their overlay or of the config.

    Args:
        path: file of the weights.
        computed: digest of their tensors.
        overlay: overlay of the weights; empty if there is none.
        digest: digest in the config; None if the config has none.
    """
    path = Path(path)
    if computed != overlay.get("digest", computed):
        raise ValueError(
            f"{path}: these are not the weights that {path.with_suffix('.json').name} next to them describes (another "
            "digest); one of the files is damaged or was changed, or a training was killed while it wrote them. Get "
            "both files again, or go on with that training by --resume True."
        )
    if digest is not None and computed != digest:
        raise ValueError(
            f"{path}: the config belongs to other weights (another digest). {_advise(path, bool(overlay))}"
        )


def _check_grid(path: str | os.PathLike, overlay: Mapping[str, Any], degradation: Degradation) -> None:
    """Refuse weights that were trained for another scale or another offset of LR voxels."""
    offset = overlay.get("trained", {}).get("offset")
    # The degradation is not part of an overlay.
    known = "Lay the config of their training's degradation over this one, or give --degradation."
    checks = [
        (
            "scale",
            overlay.get("scale"),
            list(degradation.factors),
            f"Leave out what sets it. {_advise(Path(path), True)}",
        ),
        ("offset of LR voxels", offset, list(degradation.offset), known),
    ]
    for name, theirs, ours, advice in checks:
        if theirs is not None:
            _check_equal(path, f"the {name}", theirs, ours, advice)


def compute_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the names, types, shapes and values of tensors, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()


def convert_to_plain(value: Any) -> Any:
    """Convert a value to what JSON gives back, with lists for tuples."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise ValueError(f"sizes: found {value!r}, expected values that JSON can hold.") from None


def _find_fault(overlay: Mapping[str, Any]) -> str | None:
    """What is wrong with an overlay, which people may edit; None if it is right."""
    if not {"digest", "trained"} <= overlay.keys():
        return "found no digest and trained, expected both"
    trained = overlay["trained"]
    if not isinstance(trained, dict):
        return f"trained is {trained!r}, expected an object"
    named = {"checkpoint": overlay.get("checkpoint", ""), "digest": overlay["digest"]}
    named |= {f"trained#{key}": trained.get(key, "") for key in ("bundle", "network")}
    wrong = [f"{key} is {value!r}, expected a text" for key, value in named.items() if not isinstance(value, str)]
    return wrong[0] if wrong else None


def _check_tensors(path: Path, state: Any, network: nn.Module, option: str, has_overlay: bool) -> None:
    """Refuse a file that does not hold weights, or holds weights of another network."""
    if isinstance(state, dict) and STATE <= state.keys():
        files = [path.with_name("model_last.pt"), path.with_name("model.pt")]
        there = [f"--{option} {file}" for file in files if file.is_file()]
        raise ValueError(
            f"{path} is the state of a training at iteration {state['iteration']}, for --resume True, not a file of "
            f"weights; name its weights{': ' + ' or '.join(there) if there else ''}."
        )
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a dictionary of weights, found {type(state).__name__}.")
    expected = network.state_dict()
    missing = [k for k in expected if k not in state]
    extra = [str(k) for k in state if k not in expected]
    other = [
        f"{k} {_name_kind(state[k])} instead of {_name_kind(v)}"
        for k, v in expected.items()
        if k in state and not _can_replace(state[k], v)
    ]
    if missing or extra or other:

        def list_names(names: list[str]) -> str:
            return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"

        raise ValueError(
            f"{path}: the weights are of another architecture. Missing: {list_names(missing)}. Unknown: "
            f"{list_names(extra)}. Of another size or kind: {list_names(other)}. {_advise(path, has_overlay)}"
        )


def _check_sizes(path: Path, overlay: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    """Refuse weights for a network of other sizes. Some, such as ``residual``, do not show in the tensors."""
    for key in overlay.keys() & sizes.keys():
        _check_equal(path, key, overlay[key], sizes[key], _advise(path, True))


def _check_equal(path: str | os.PathLike, name: str, stored: Any, expected: Any, advice: str) -> None:
    """Refuse a value that differs from the one in the weights' training."""
    if stored != convert_to_plain(expected):
        raise ValueError(
            f"{path}: {name} is {convert_to_plain(expected)}, but these weights were trained with {stored}. {advice}"
        )


def _advise(path: Path, has_overlay: bool) -> str:
    """What to do if config and weights differ."""
    if has_overlay:
        overlay = path.with_suffix(".json")
        return f"Lay the weights' own overlay over the config: --config_file \"['CONFIG.json','{overlay}']\"."
    return explain_no_overlay(path)


def _can_replace(value: Any, expected: torch.Tensor) -> bool:
    """Whether a value from a file can replace a network's weight."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_meta
        and value.shape == expected.shape
        and value.is_floating_point() == expected.is_floating_point()
        and not value.is_complex()
    )


def _name_kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    layout = "on no device" if value.is_meta else "" if value.layout == torch.strided else str(value.layout)
    return " ".join(filter(None, (str(tuple(value.shape)), str(value.dtype).removeprefix("torch."), layout)))
