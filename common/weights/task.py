"""The task of a training: how its LR is made of HR, and by which network it is undone, as keys of a config."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser

from ..io.files import find_shipped, read_json_object

#: Keys of train.json that define the task, besides the scale and the slice axis, which weights have in any case.
KEYS = ("degradation", "scan_degradation", "scaled_by", "network_def")
_REFERENCE = re.compile(r"[@%](\w+)")
_LIBRARY = __name__.removesuffix(".weights.task")
_CLASS = re.compile(r"(\w+)\(")


def find_config() -> dict[str, Any] | None:
    """The config that MONAI builds objects of at the moment. It does not give it to them, so look in the callers."""
    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), ConfigParser):
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"].get()


def select_changes(config: Mapping[str, Any] | None, bundle_root: str | os.PathLike) -> dict[str, Any]:
    """The keys of the task that a training changed, with the keys that they refer to, for the overlay of its weights.

    Args:
        config: of the training; None if there is none.
        bundle_root: folder of the bundle, whose train.json has the task that was not changed.
    """
    usual, _ = read_json_object(find_shipped(bundle_root) / "configs" / "train.json")
    waiting = [key for key in KEYS if config and key in config and config[key] != usual.get(key)]
    changed: dict[str, Any] = {}
    while waiting:
        if (key := waiting.pop()) not in changed and key in (config or {}):
            changed[key] = (config or {})[key]
            waiting += _REFERENCE.findall(json.dumps(changed[key], default=str))
    return changed


def describe_task(
    config: Mapping[str, Any], overlay: Mapping[str, Any], factors: Sequence[float], offset: Sequence[float]
) -> list[str]:
    """Lines on the task of an evaluation, and one for each key in which it differs from the training of its weights.

    Args:
        config: of the evaluation.
        overlay: of its weights; empty if they have none.
        factors: of its degradation, HR voxels per LR voxel, three.
        offset: of its degradation, centre of LR voxel 0 in HR voxels, three.
    """
    lines = [f"scale: {'x'.join(f'{f:g}' for f in factors)}"]
    lines.append(f"centre of the first LR voxel: ({', '.join(f'{o:g}' for o in offset)}) HR voxels")
    lines += [
        f"{key}: {_format(config[key], config)}" for key in KEYS if key in config and config[key] != "@degradation"
    ]
    for key in KEYS:
        mine, trained = _format(config.get(key), config), _format(overlay.get(key), {**config, **overlay})
        if key in overlay and mine != trained:
            lines.append(f"warning: the weights were trained with {key} {trained}, not with {mine}")
    return lines


def name_network(config: Mapping[str, Any], bundle_root: str | os.PathLike) -> str | None:
    """The class that stands in a training's network in the place of the bundle's own; None if that was not changed.

    Args:
        config: of the evaluation.
        bundle_root: folder of the bundle, whose train.json has the network that was not changed.
    """
    usual, _ = read_json_object(find_shipped(bundle_root) / "configs" / "train.json")
    own, now = (_CLASS.findall(_format(each.get("network_def"), each)) for each in (usual, config))
    renamed = usual.get("method") != config.get("method")
    return None if renamed else next((name for name in now if name not in own), None)


def _format(value: Any, config: Mapping[str, Any], depth: int = 3) -> str:
    """A component as a call, with the values of other keys in place of references to them."""
    if isinstance(value, str) and value[:1] == "@" and (key := value[1:]) in config and depth:
        return key if key in KEYS else _format(config[key], config, depth - 1)
    if isinstance(value, Mapping) and "_target_" in value:
        given = [f"{k}={_format(v, config, depth)}" for k, v in value.items() if k[0] != "_" and k != "factors"]
        name = str(value["_target_"])
        is_ours = name.startswith(("common.", f"{_LIBRARY}."))
        return f"{name.rpartition('.')[2] if is_ours else name}({', '.join(given)})"
    if isinstance(value, list):
        return f"[{', '.join(_format(each, config, depth) for each in value)}]"
    return str(value)
