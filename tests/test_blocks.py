"""What all bundles' configs take from common/configs: it is there, it is closed, and nothing else stands twice."""

import json
import re
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ReferenceResolver

from common.blocks import ROOT, block_of, is_block, strings_in, written_out
from common.override_checks import check
from tests.bundles import runs

from .refused import refused

CONFIGS = {path: json.loads(path.read_text()) for path in sorted(ROOT.glob("bundles/*/configs/*.json"))}
# The standard keys at the top, which people read and override, in each bundle.
STANDARD = """bundle_root simulated dataset_dir output_dir ckpt_dir checkpoint brisque lpips report device amp
    amp_kwargs compile seed resume initial suffix invalidates skip_existing shard bids""".split()
# A number or several, another key, what weights remember, or a block.
KNOWN = r'([\d.e-]+|\[[\d., ]+\]|true|false|null|\{\}|"@\w+"|"\$remembered\(@\w+, [^"]*\)")'
NAMES_ONLY = re.compile(rf'%common/configs/|^"\w+": {KNOWN}(, "\w+": {KNOWN})*,?$')


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "bundles"))


def places_and_blocks(value, path=()):
    if is_block(value):
        yield path, value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_and_blocks(item, (*path, str(key)))


def references(config):
    return [key for text in strings_in(config) for key in ReferenceResolver.match_refs_pattern(text)]


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_macros_resolve(path):
    """Every macro leads to something, in its file or in common/configs, which itself has no macros."""
    config = CONFIGS[path]
    assert not [text for text in strings_in(written_out(config)) if text.startswith("%common")]
    for text in strings_in(config):
        # MONAI takes the first name of ``from x import a, b`` and leaves out the others with a warning.
        assert not re.match(r"\$(from .* )?import .*,", text), text
        if text.startswith("%"):
            file, key = ConfigParser.split_path_id(text[1:])
            base = path.with_name("inference.json" if path.name.startswith("inference") else "train.json")
            content = json.loads((ROOT / file).read_text()) if file else {**CONFIGS[base], **config}
            assert key in ConfigParser(config=content), text
    for _, block in places_and_blocks(config):
        file, key = block["_target_"][1:].split("::")
        assert ConfigParser(config=json.loads((ROOT / file).read_text()))[key]["_mode_"] == "callable"
        assert not [text for text in strings_in(block_of(block)) if text.startswith("%")]


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.name in ("train.json", "inference.json")], ids=name)
def test_blocks_are_closed(path):
    """A block refers to keys of the config that takes it, none of them within a block, and is referred to whole."""
    found, parser = dict(places_and_blocks(CONFIGS[path])), ConfigParser(config=CONFIGS[path])
    assert found
    for block in found.values():
        for key in references(block_of(block)):
            assert key in parser, f"{block['_target_']} refers to {key}, which {path} has not"
            # What is nested stands in a section that MONAI's bundle specification names.
            assert "::" not in key or re.match("(train|validate|evaluate)::", key), f"{block['_target_']}: {key}"
    within = tuple(f"{'::'.join(place)}::" for place in found)
    overlays = path.parent.glob("inference_*.json" if path.name == "inference.json" else "*.json")
    for other in {path, *overlays} - {path.with_name("metadata.json"), path.with_name("tables.json")}:
        for key in (*references(CONFIGS[other]), *CONFIGS[other]):
            assert not key.removeprefix("+").replace("#", "::").startswith(within), f"{other}: {key} is in a block"


def test_overrides_that_lead_to_another_file_or_key(monkeypatch):
    """A key in a block is answered with that to set instead, or its neighbour, and one in a twin with the other's."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    line = ["bundle/__main__.py", "run", "--config_file", str(ROOT / "bundles/udean/configs/train.json")]
    for key, *words in (
        ("train#trainer#max_epochs", "train#trainer is the block ", "overrides do not reach", "; set --max_epochs"),
        ("train::trainer::max_epochs", "set --max_epochs"),
        ("train#trainer#max_epoch", "which has no such key; did you mean max_epochs?"),
        ("validate#dataset#data", "set --validation_data"),
        ("train#handlers#1#epoch_level", "the block ", "::validation, ", "; replace train#handlers#1 as a whole"),
        ("trained_network#path", "set --checkpoint"),
        ("generic_degradation#radius", "generic_degradation is the same as linear_degradation ", "; set it there"),
    ):
        refused(lambda key=key: check([*line, f"--{key}", "3"]), ValueError, f"--{key}: ", *words)
    check([*line, "--train#trainer", "3", "--generic_degradation", "3", "--linear_degradation#radius", "3"])


def test_configs_are_short_and_no_six_lines_stand_in_two_bundles():
    """But for imports, the standard keys, lines with a number, a block, other keys or remembered ones, and metadata."""
    passed_over = (*(f'"{key}":' for key in STANDARD), '"imports": ', '"$import ', '"$from ')
    seen = {}
    for path in CONFIGS:
        bundle = path.parent.parent.name
        lines = [line.strip() for line in path.read_text().splitlines()]
        assert len(lines) <= {"train": runs.TINY[bundle].lines, "inference": 110}.get(path.stem, len(lines)), path
        lines = [line for line in lines if not set(line) <= set("{}[],") and not line.startswith(passed_over)]
        lines = [line.rstrip(",") for line in lines if not NAMES_ONLY.search(line)]
        for i in range(len(lines) - 5 if path.name != "metadata.json" else 0):
            window = tuple(lines[i : i + 6])
            assert seen.setdefault(window, bundle) == bundle, f"{path} and bundles/{seen[window]}: {window}"
