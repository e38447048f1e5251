"""``python -m common new``: write a new bundle, from one that it is like."""

from __future__ import annotations

import ast
import json
import keyword
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...io.files import format_config
from ..export.modules import map_strings

_CONFIGS = ("train", "inference", "evaluate", "demo", "small")
# Left out of the new bundle's tests: what they would check is tested with the bundle that it is like.
_TESTED_THERE = ("degradation", "like")
_RUN = "python -m monai.bundle run --config_file"
_README = """# {name}

FILL IN: what goes in and what comes out. FILL IN: what it learns from. No weights ship.

```bash
# demo
{run} "['{configs}/{main}.json','{configs}/evaluate.json','{configs}/demo.json']"
# your own scans
{datalist}
{run} {configs}/{main}.json --dataset_dir D --output_dir W
```

Evaluate, apply, shared options: [bundles/README.md](../../README.md). Figures: [results.md](results.md).

## Idea

FILL IN: the paper's idea in three sentences.

FILL IN: {picture}.

## When not

- FILL IN

## Options

| option, overlay | effect |
|---|---|
| FILL IN | FILL IN |

## How this differs from the paper

| the paper | this bundle |
|---|---|
| FILL IN | FILL IN |

## Cite

FILL IN
"""
_RESULTS = """# {name}: results

## Demo

```bash
{run} "['{configs}/{main}.json','{configs}/evaluate.json','{configs}/demo.json']"
```

FILL IN: data, length, machine, and the table with its CSV.
"""
_NEXT = """next:
  common/networks/{name}.py: your network; name it in common/networks/__init__.py
  {configs}/train.json and inference.json: network_def and its sizes; in train.json also
  train#trainer#run_folder#sizes, graph and players
  {root}/docs: what is marked FILL IN; metadata.json; and a row in bundles/README.md
  see that it trains, in seconds:
    {run} "['{configs}/train.json','{configs}/evaluate.json','{configs}/demo.json']" --output_dir W --epoch_length 4"""
_NEXT_WITHOUT_TRAINING = """next:
  common/inferers/{name}.py: your inferer; name it in common/inferers/__init__.py
  {configs}/inference.json: inferer and its values
  {root}/docs: what is marked FILL IN; metadata.json; and a row in bundles/README.md
  see that it runs:
    {run} "['{configs}/inference.json','{configs}/evaluate.json','{configs}/demo.json']" --output_dir W"""
_TEST = "  test it: python -m pytest tests/bundles/test_bundles.py tests/bundles/test_entry_points.py -k {name}"


def create_bundle(bundle: str, template: str = "srcnn") -> None:
    """Write all files of a new bundle. It trains and passes the tests of all bundles before you change anything.

    If the other bundle trains nothing, neither does the new one, and it gets the other's weights, if there are any.

    Args:
        bundle: the folder to make, for example bundles/mynet. Its last part is the method's name.
        template: the bundle that it begins as: the name of one in the same folder, or a folder.

    Raises:
        FileExistsError: when the folder is there.
        FileNotFoundError: when there is no bundle to begin with.
        ValueError: when the name has other characters than lower-case letters, digits and underscores.
    """
    folder = Path(bundle)
    name, root = folder.name, folder.as_posix()
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(
            f"--bundle {bundle}: a bundle's name has lower-case letters, digits and underscores, as mynet."
        )
    source = Path(template) if Path(template, "configs").is_dir() else folder.parent / template
    if not (source / "configs" / "inference.json").is_file():
        known = ", ".join(sorted(path.parents[1].name for path in folder.parent.glob("*/configs/inference.json")))
        raise FileNotFoundError(
            f"--template {template}: there is no {source}/configs/inference.json; there are {known or 'none'}."
        )
    trains = (source / "configs" / "train.json").is_file()
    tests = folder.parent.parent / "tests" / "bundles" / "tiny"
    for path in (folder, tests / f"{name}.py"):
        if path.exists():
            raise FileExistsError(f"{path} is there already; choose another name, or remove it.")

    configs = {
        config: _rename(json.loads(path.read_text()), source.name, name)
        for config in _CONFIGS
        if (path := source / "configs" / f"{config}.json").is_file()
    }
    configs["inference"] |= {"bundle_root": root}
    if trains:
        configs["train"] |= {"bundle_root": root, "method": name}
        configs["inference"] |= _reset_weight_values(source, configs)
    elif "evaluate" in configs:
        configs["evaluate"] |= {"method": name}
    configs["metadata"] = _make_metadata(json.loads((source / "configs" / "metadata.json").read_text()), name)
    texts = {"name": name, "root": root, "run": _RUN, "configs": f"{root}/configs"}
    texts["picture"] = f"what python .docs/draw.py {root} prints" if trains else "a picture"
    texts["main"] = "train" if trains else "inference"
    for part in ("configs", "docs", "models"):
        (folder / part).mkdir(parents=True)
    for config, content in configs.items():
        (folder / "configs" / f"{config}.json").write_text(format_config(content) + "\n")
    shutil.copyfile(source / "configs" / "logging.conf", folder / "configs" / "logging.conf")
    pages = {
        "README.md": _README.format(**texts, datalist=_find_datalist_command(source)),
        "results.md": _RESULTS.format(**texts),
        "data_license.txt": _read_data_license(source),
    }
    for page, text in pages.items():
        (folder / "docs" / page).write_text(text, encoding="utf-8")
    (folder / "models" / ".gitkeep").touch()
    for file in () if trains else source.glob("models/model*"):
        shutil.copyfile(file, folder / "models" / file.name)
    print(f"{folder}: {', '.join(path.relative_to(folder).as_posix() for path in sorted(folder.rglob('*.*')))}")
    facts = tests / f"{source.name}.py"
    if facts.is_file():
        (tests / f"{name}.py").write_text(_write_tiny_config(facts.read_text(encoding="utf-8"), source.name, name))
        print(f"{tests / f'{name}.py'}: what the tests must know of it")
    elif trains:
        print(f"there is no {facts}, so nothing was written for the tests")
    print((_NEXT if trains else _NEXT_WITHOUT_TRAINING).format(**texts))
    if facts.is_file():
        print(_TEST.format(**texts))


def _rename(value: Any, old: str, name: str) -> Any:
    """Replace a bundle's name in a config or text, but not in the name of a module or class."""
    pattern = rf"(?<![\w.]){old}(?!\w)|(?<=demo_){old}(?!\w)"
    return map_strings(value, lambda text: re.sub(pattern, name, text))


def _reset_weight_values(source: Path, configs: Mapping[str, dict]) -> dict[str, Any]:
    """Return the values of inference.json that depend on the shipped weights, as they are without weights."""
    overlay = source / "models" / "model.json"
    decided = json.loads(overlay.read_text()) if overlay.is_file() else {}
    train, inference = configs["train"], configs["inference"]
    # The checkpoint names the bundle's own file of weights.
    values = {key: train.get(key) for key in inference if key in decided and key != "checkpoint"}
    return {key: value for key, value in values.items() if not str(value).startswith(("$", "@"))}


def _make_metadata(meta: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the metadata of another bundle, changed for a first version."""
    return {key: value for key, value in meta.items() if key != "eval_metrics"} | {
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "name": name,
        "task": "MRI super-resolution",
        "description": f"MRI super-resolution by {name}",
        "data_source": "none shipped; see docs/data_license.txt",
        "references": [],
    }


def _find_datalist_command(source: Path) -> str:
    """Return the command by which another bundle's page makes its datalist."""
    page = source / "docs" / "README.md"
    command = re.search(
        "^python -m common datalist .*$", page.read_text(encoding="utf-8") if page.is_file() else "", re.M
    )
    return command[0] if command else "python -m common datalist --dataset_dir D --help"


def _read_data_license(source: Path) -> str:
    """Return the data licence of another bundle, without the text about its weights."""
    paragraphs = (source / "docs" / "data_license.txt").read_text(encoding="utf-8").split("\n\n")
    return "\n\n".join(text for text in paragraphs if "weights in models/" not in text)


def _write_tiny_config(code: str, old: str, name: str) -> str:
    """What the tests know of a bundle, for another that is like it."""

    def list_arguments() -> Iterator[tuple[Any, Any]]:
        call: Any
        (call,) = [n.value for n in ast.parse(code).body if isinstance(n, ast.Assign) and n.targets[0].id == "TINY"]  # type: ignore[attr-defined]
        for argument in call.keywords:
            yield argument.arg, ast.get_source_segment(code, argument.value)

    known = dict(list_arguments())
    values = {key: _rename(value, old, name) for key, value in known.items() if key not in _TESTED_THERE}
    values["like"] = f'"{old}"' if "degradation" in known else known.get("like", f'"{old}"')
    return "TINY = dict(\n" + "".join(f"    {key}={value},\n" for key, value in values.items()) + ")\n"
