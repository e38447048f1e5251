"""The unit test of a bundle in the model zoo's form, from a template and the bundle's own configs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .modules import format_code

_PATCH = 16  # voxels of an LR or HR patch along an axis
_ONCE = ("epochs", "epoch_length", "iterations")  # endings of keys that say how often something is done


def write_unit_test(configs: Mapping[str, dict], path: Path, bundle: str) -> None:
    """Write a test that trains a step, validates, evaluates and infers, on volumes that it makes itself.

    It infers with the weights that ship. Its overrides make the bundle's configs tiny. A bundle without train.json
    only infers.

    Args:
        configs: of the bundle, by name.
        path: of the file; its folder is made.
        bundle: name of the bundle, which is its folder among the zoo's models.
    """
    text = Path(__file__).with_name("unit_test.txt").read_text(encoding="utf-8")
    train, infer = configs.get("train"), configs["inference"]
    scale = infer.get("scale")
    scale = [float(n) for n in scale] if isinstance(scale, list) and _are_numbers(scale) else [1.0, 1.0, 4.0]
    values: dict[str, Any] = {"bundle": bundle, "test": f"Test{bundle.title().replace('_', '')}"}
    text = re.sub(
        r"^ *# :?train:?\n" if train else r"^ *# train:\n.*?# :train\n", "", text, flags=re.MULTILINE | re.DOTALL
    )
    if train:
        guided = ["guide"] if train.get("guided") else []
        source = ["ct"] if "ct" in [group.get("kinds") for group in _find_groups(train)] else ["hr", *guided]
        values["kinds"] = (
            f"{format_code(source, before='SOURCE = ')}\n{format_code(['hr', *guided], before='OTHERS = ')}"
        )
        values["train"] = format_code([_shrink(train)], before="TRAIN_CASE = ")
    scans = {"sub-1_t2w.nii.gz": ["hr", scale]}
    if infer.get("guided"):
        scans["sub-1_t1w.nii.gz"] = ["guide", [1.0, 1.0, 1.0]]
    if "fewest_stacks" in infer:  # of an exam, along two axes
        scans = {"sub-1_acq-axial_t2w.nii.gz": ["hr", scale], "sub-1_acq-sagittal_t2w.nii.gz": ["hr", scale[::-1]]}
    values["scans"] = format_code(scans, before="SCANS = ")
    values["infer"] = format_code([_shrink(infer)], before="INFER_CASE = ")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(**values), encoding="utf-8")


def _shrink(config: dict) -> dict[str, Any]:
    """Overrides that make a config tiny: what is done many times is done once, on small patches."""
    small: dict[str, Any] = {}
    for key, value in _list_values(config):
        name = key.rpartition("#")[2]
        if name == "epoch_length" and str(value).startswith("$"):
            small[key] = 1
        elif isinstance(value, list):
            if name.endswith("patch") and _are_numbers(value):
                small[key] = [min(n, _PATCH) for n in value]
        elif _are_numbers([value]):
            if name.endswith(_ONCE) and value > 1:
                small[key] = 1
            elif name == "batch_size":
                small[key] = min(value, 2)
            elif name.endswith("patch"):
                small[key] = min(value, _PATCH)
    if "slice_axis" in config and "fewest_stacks" not in config:
        small["slice_axis"] = "SI"
    return small


def _are_numbers(values: list) -> bool:
    return all(type(value) in (int, float) for value in values)


def _list_values(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dictionaries and lists of dictionaries, by MONAI's ids."""
    for name, value in config.items() if isinstance(config, dict) else enumerate(config):
        inner = f"{key}#{name}" if key else str(name)
        if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
            yield from _list_values(value, inner)
        else:
            yield inner, value


def _find_groups(config: Any) -> Iterator[dict]:
    """The groups of a datalist that a config reads."""
    if isinstance(config, dict) and str(config.get("_target_")).endswith(".data.Group"):
        yield config
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _find_groups(value)
