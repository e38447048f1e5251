"""What all configs keep to: they are values, references and components, and short."""

import json
import re

import pytest

from . import runs

CONFIGS = {
    path: json.loads(path.read_text())
    for path in sorted(runs.ROOT.glob("bundles/*/configs/*.json"))
    if path.stem not in ("metadata", "tables")
}


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_in(item)


def size(config):
    """Lines as json writes them, and expressions."""
    return len(json.dumps(config, indent=4).splitlines()), sum(text.startswith("$") for text in strings_in(config))


@pytest.mark.parametrize(
    ("name", "lines", "expressions", "longest"), [("train", 4000, 250, 520), ("inference", 1250, 170, 250)]
)
def test_configs_are_short(name, lines, expressions, longest):
    """Seventeen bundles; another one may add its share."""
    sizes = {path.parent.parent.name: size(config) for path, config in CONFIGS.items() if path.stem == name}
    share = max(1, len(sizes) / 17)
    assert sum(n for n, _ in sizes.values()) <= share * lines, sizes
    assert sum(n for _, n in sizes.values()) <= share * expressions, sizes
    assert max(n for n, _ in sizes.values()) <= longest, sizes


def test_the_simplest_training_is_a_page():
    config = CONFIGS[runs.ROOT / "bundles" / "srcnn" / "configs" / "train.json"]
    lines, expressions = size(config)
    assert lines <= 150 and len(config) <= 30 and expressions <= 12


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(runs.ROOT / "bundles")))
def test_a_value_is_a_literal_a_reference_or_a_component(path):
    """No macro to another file, no function of ours that a component would call, no import that MONAI cuts short."""
    for text in strings_in(CONFIGS[path]):
        assert not re.match(r"%.*\.json", text), text
        assert not re.search(r"(?<![.\w])(is_true|remembered|run_again|check)\(", text), text
        # MONAI takes the first name of ``from x import a, b`` and leaves out the others with a warning.
        assert not re.match(r"\$(from .* )?import .*,", text), text
