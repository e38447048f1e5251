"""What all bundles' configs take from common/configs: it is there, it is closed, and nothing else stands twice."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ReferenceResolver

from common.blocks import ROOT, block_of, is_block, strings_in, written_out
from common.command_line import check
from tests.bundles import runs

CONFIGS = sorted(ROOT.glob("bundles/*/configs/*.json"))
BRACKETS = set("{}[],")
# The standard keys at the top, which people read and override, in each bundle.
STANDARD = (
    "bundle_root", "simulated", "dataset_dir", "output_dir", "ckpt_dir", "checkpoint", "brisque", "lpips", "report",
    "device", "amp", "amp_kwargs", "compile", "seed", "resume", "initial", "suffix", "invalidates",
    "skip_existing", "shard", "bids",
)  # fmt: skip


# A number or several, another key, what weights remember, or a block.
KNOWN = r'([\d.e-]+|\[[\d., ]+\]|true|false|null|\{\}|"@\w+"|"\$remembered\(@\w+, [^"]*\)")'
NAMES_ONLY = re.compile(rf'%common/configs/|^"\w+": {KNOWN}(, "\w+": {KNOWN})*,?$')


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "bundles"))


def blocks_in(value, path=()):
    """Places and values of the blocks that a config takes."""
    if is_block(value):
        yield path, value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from blocks_in(item, (*path, str(key)))


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_macros_resolve(path):
    """Every macro leads to something, in its file or in common/configs, which itself has no macros."""
    config = json.loads(path.read_text())
    assert not [text for text in strings_in(written_out(config)) if text.startswith("%common")]
    for text in strings_in(config):
        if text.startswith("%"):
            file, key = ConfigParser.split_path_id(text[1:])
            base = path.with_name("inference.json" if path.name.startswith("inference") else "train.json")
            content = json.loads((ROOT / file if file else base).read_text())
            assert key in ConfigParser(config={**content, **({} if file else config)}), text
    for _, block in blocks_in(config):
        content = ConfigParser(config=json.loads((ROOT / block["_target_"][1:].split("::")[0]).read_text()))
        assert content[block["_target_"].split("::")[1]]["_mode_"] == "callable"
        assert not [text for text in strings_in(block_of(block)) if text.startswith("%")]


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.name in ("train.json", "inference.json")], ids=name)
def test_blocks_are_closed(path):
    """A block refers to keys of the config that takes it, none of them within a block, and is referred to whole."""
    config = json.loads(path.read_text())
    found = dict(blocks_in(config))
    assert found
    within = tuple(f"{'::'.join(place)}::" for place in found)
    parser = ConfigParser(config=config)
    for block in found.values():
        for text in strings_in(block_of(block)):
            for key in ReferenceResolver.match_refs_pattern(text):
                assert key in parser, f"{block['_target_']} refers to {key}, which {path} has not"
                # What is nested stands in a section that MONAI's bundle specification names.
                section, *inner = key.split("::")
                assert not inner or section in ("train", "validate", "evaluate"), f"{block['_target_']}: {key}"
    overlays = path.parent.glob("inference_*.json" if path.name == "inference.json" else "*.json")
    for other in {path, *overlays} - {path.with_name("metadata.json"), path.with_name("tables.json")}:
        content = json.loads(other.read_text())
        referred = [key for text in strings_in(content) for key in ReferenceResolver.match_refs_pattern(text)]
        set_keys = [key.removeprefix("+").replace("#", "::") for key in content]
        for key in (*referred, *set_keys):
            assert not key.startswith(within), f"{other}: {key} is in a block"


def test_overrides_that_lead_to_another_file_or_key(monkeypatch):
    """A key in a block is answered with that to set instead, or with its neighbour, and one in a twin with the other's.

    tests/bundles/test_bad_input.py has them by the real command line.
    """
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    answers = {
        "train#trainer#max_epochs": "train#trainer is the block .*, which overrides do not reach .*; set --max_epochs",
        "train::trainer::max_epochs": "set --max_epochs",
        "train#trainer#max_epoch": r"which has no such key; did you mean max_epochs\?",
        "validate#dataset#data": "set --validation_data",
        "train#handlers#1#epoch_level": "the block .*::validation, .*; replace train#handlers#1 as a whole",
        "trained_network#path": "set --checkpoint",
        "generic_degradation#radius": "generic_degradation is the same as linear_degradation .*; set it there",
    }
    line = ["bundle/__main__.py", "run", "--config_file", str(ROOT / "bundles/udean/configs/train.json")]
    for key, answer in answers.items():
        with pytest.raises(ValueError, match=rf"^--{key}: .*{answer}"):
            check([*line, f"--{key}", "3"])
    check([*line, "--train#trainer", "3", "--generic_degradation", "3", "--linear_degradation#radius", "3"])


def test_import_expressions_take_one_name():
    """MONAI takes the first name of ``from x import a, b`` and leaves out the others with a warning."""
    for path in CONFIGS:
        for text in strings_in(json.loads(path.read_text())):
            assert not re.match(r"\$(from .* )?import .*,", text), f"{path}: {text}"


def test_no_six_lines_stand_in_two_bundles():
    """But for imports, the standard keys at the top, and lines with a number, a block, other keys or remembered ones.

    MONAI's tools read metadata.json as it stands.
    """
    seen: dict[tuple[str, ...], str] = {}
    for path in CONFIGS:
        if path.name == "metadata.json":
            continue
        lines = [line.strip() for line in path.read_text().splitlines()]
        lines = [line for line in lines if not set(line) <= BRACKETS]
        lines = [line for line in lines if not line.startswith(tuple(f'"{key}":' for key in STANDARD))]
        lines = [line for line in lines if not line.startswith(('"imports": ', '"$import ', '"$from '))]
        lines = [line for line in lines if not NAMES_ONLY.search(line)]
        bundle = path.parent.parent.name
        for i in range(len(lines) - 5):
            window = tuple(line.rstrip(",") for line in lines[i : i + 6])
            assert seen.setdefault(window, bundle) == bundle, f"{path} and bundles/{seen[window]}: {window}"


def test_line_counts():
    """A train.json says what is the method's own, and reads top to bottom in a few minutes."""
    for path in CONFIGS:
        limit = {"train": runs.TINY[path.parent.parent.name].lines, "inference": 110}.get(path.stem)
        assert limit is None or len(path.read_text().splitlines()) <= limit, path
