"""What weights are: written into their files when they are saved, remembered by configs, and compared when loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .io.files import read_about

__all__ = ["about_network", "check_settings", "compare", "fitting", "kept", "remembered", "tensors_sha256"]


def remembered(path: str | os.PathLike | None, **default: Any) -> Any:
    """A value that weights were trained with, for a key of a config: ``"$remembered(@checkpoint, features=48)"``.

    An override or an overlay that sets the key replaces the expression; :func:`check_settings` then compares.

    Args:
        path: of the weights; None where there are none.
        default: the key, and its value where the file is not there or does not say.

    Raises:
        ValueError: when what the file says of itself cannot be read.
    """
    ((key, value),) = default.items()
    about = (read_about(path) if path is not None else None) or {}
    # A setting that says auto agrees with anything; what inference then does is the default.
    return {**about.get("settings", {}), **about.get("defaults", {})}.get(key, value)


def fitting(path: str | os.PathLike, **settings: Any) -> str:
    """The weights at ``path``, or those beside them that have these settings where they themselves have others.

    Beside ``model.pt`` those are ``model_2.pt``, ``model_unguided.pt`` and the like: whoever names one of these, or a
    file of another name, gets it.

    Args:
        path: of the weights.
        settings: those that choose.

    Returns:
        A path; that given where no file beside it fits, or it does not say what it is.
    """
    about = read_about(path)
    found = _others(Path(path), about, settings, family=True) if about and _differences(about, settings) else []
    return str(found[0]) if found else str(path)


def kept(path: str | os.PathLike, key: str) -> list[Any]:
    """The values of a setting in the weights at ``path`` and in those beside them that :func:`fitting` looks at.

    Args:
        path: of the weights.
        key: of the setting.

    Returns:
        Each value once, that of ``path`` first; nothing where the file is not there or does not say.
    """
    about = read_about(path)
    if not about or key not in about["settings"]:
        return []
    values = []
    for said in (about, *(read_about(file) for file in _others(Path(path), about, {}, family=True))):
        value = said["settings"].get(key)
        values += [value] if value is not None and value not in values else []
    return values


def check_settings(path: str | os.PathLike, settings: Mapping[str, Any], option: str = "checkpoint") -> None:
    """Refuse a config that contradicts what its weights were trained with.

    Args:
        path: of the weights; a file that does not say what it is passes, as does one that is not there.
        settings: of the config; those that the weights do not know are passed over, and "auto" agrees with anything.
        option: what the path is called where it is set, for messages.

    Raises:
        ValueError: with each setting, its two values and the file, and where there is one the file that fits.
    """
    compare(path, read_about(path), settings, option)


def compare(
    path: str | os.PathLike, about: Mapping[str, Any] | None, settings: Mapping[str, Any] | None, option: str
) -> None:
    """:func:`check_settings` of a file that has been read: ``about`` and ``settings`` may be missing."""
    found = _differences(about, settings) if about and settings else {}
    if found:
        told = "; ".join(
            f"{key} is {ours!r}, but these weights were trained with {theirs!r}"
            for key, (ours, theirs) in found.items()
        )
        raise ValueError(
            f"{path}, of {about['bundle']} {about['version']}: {told}. Leave out what sets {' and '.join(found)}, or "
            f"take weights that fit{_advice(Path(path), about, settings, option)}."
        )


def about_network(
    network: nn.Module, settings: Mapping[str, Any], defaults: Mapping[str, Any], bundle_root: str | os.PathLike
) -> dict[str, Any]:
    """What there is to say of a network's weights, as :func:`common.io.files.read_about` gives it.

    Args:
        network: with its weights.
        settings: that evaluation and inference must have alike; what JSON can hold.
        defaults: that inference takes unless it is told otherwise; what JSON can hold.
        bundle_root: folder of the bundle, whose name and version are told.
    """
    root = Path(bundle_root)
    metadata = root / "configs" / "metadata.json"
    return {
        "bundle": root.resolve().name,
        "version": json.loads(metadata.read_text())["version"] if metadata.is_file() else None,
        "network": type(network).__name__,
        "settings": {key: _plain(key, value) for key, value in settings.items()},
        "defaults": {key: _plain(key, value) for key, value in defaults.items()},
        "sha256": tensors_sha256(network.state_dict()),
    }


def tensors_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the names, types, shapes and values of tensors, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _differences(about: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The config's and the weights' value of each setting that both have and that differ."""
    pairs = {key: (_plain(key, settings[key]), value) for key, value in about["settings"].items() if key in settings}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and "auto" not in pair}


def _plain(key: str, value: Any) -> Any:
    """A value as it comes back from JSON: tuples are lists there."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise ValueError(f"settings: {key} is {value!r}, expected what JSON can hold.") from None


def _others(path: Path, about: Mapping[str, Any], settings: Mapping[str, Any], family: bool = False) -> list[Path]:
    """Weights of the same bundle beside a file that have these settings; of its family their names begin with its."""
    pattern = f"{path.stem}_*{path.suffix}" if family else f"*{path.suffix}"
    files = [(file, read_about(file)) for file in sorted(path.parent.glob(pattern)) if file != path]
    return [f for f, a in files if a and a["bundle"] == about["bundle"] and not _differences(a, settings)]


def _advice(path: Path, about: Mapping[str, Any], settings: Mapping[str, Any], option: str) -> str:
    """How to take weights that fit, where there are such beside a file: the end of a sentence."""
    for file in _others(path, about, settings):
        overlays = sorted((file.parent.parent / "configs").glob("inference_*.json"))
        naming = [str(overlay) for overlay in overlays if file.name in overlay.read_text()]
        return f": --{option} {file}" + (f", as {naming[0]} does" if naming else "")
    return ""
