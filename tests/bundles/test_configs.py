"""What all configs keep to: they are values, references and components, and short."""

import ast
import json
import pkgutil
import re

import pytest
import torch

from . import runs

CONFIGS = {
    path: json.loads(path.read_text())
    for path in sorted(runs.ROOT.glob("bundles/*/configs/*.json"))
    if path.stem not in ("metadata", "tables")
}


# The bundles whose sizes were agreed on together.
FIRST = (
    *("blind_sr", "ct_guided", "cyclegan", "dasr", "dcsrn", "downsampling_gan", "dsn", "guided_rdn", "mdcsrn_gan"),
    *("pseudo_sr", "recnn", "reconresnet", "smore", "srcnn", "tscn", "udean"),
    *("udean_window", "zssr"),
)


def strings_in(value, key=""):
    """Each with the key that it lies under; items of a list lie under the list's."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from strings_in(item, f"{key}#{name}" if key else name)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item, key)


def size(config):
    """Lines as json writes them, and expressions."""
    return len(json.dumps(config, indent=4).splitlines()), sum(text.startswith("$") for _, text in strings_in(config))


@pytest.mark.parametrize(
    ("name", "lines", "expressions", "longest"), [("train", 6950, 250, 680), ("inference", 3300, 170, 250)]
)
def test_configs_are_short(name, lines, expressions, longest):
    """The first bundles together and each by itself; every later bundle by itself."""
    # UDEAN and CycleGAN, which train all that their papers have, are a seventh of the lines.
    sizes = {path.parent.parent.name: size(config) for path, config in CONFIGS.items() if path.stem == name}
    first = [sizes[bundle] for bundle in FIRST]
    assert sum(n for n, _ in first) <= lines and sum(n for _, n in first) <= expressions, sizes
    assert max(n for n, _ in first) <= longest, sizes
    assert not {bundle: n for bundle, (n, _) in sizes.items() if bundle not in FIRST and n > 250}


def test_the_simplest_training_is_a_page():
    config = CONFIGS[runs.ROOT / "bundles" / "srcnn" / "configs" / "train.json"]
    lines, expressions = size(config)
    assert lines <= 240 and len(config) <= 33 and expressions <= 3


# What an expression is made of; a reference is a name.
ALLOWED = (
    *(ast.Module, ast.Expr, ast.Import, ast.ImportFrom, ast.alias, ast.Name, ast.Load, ast.Constant, ast.List),
    *(ast.BinOp, ast.operator, ast.UnaryOp, ast.USub, ast.Subscript, ast.Slice, ast.Attribute),
)
# Keys whose values are other expressions, by the file that has them.
OTHERS = {
    "guided_rdn/train": {"lambda", "margin"},
}


def problems(path, text):
    """What is wrong with an expression, as the types of Python's tree and the names that are no references."""
    tree = ast.parse(re.sub(r"[@%][\w:#]+", lambda match: "_" + re.sub(r"\W", "_", match[0]), text[1:]))
    runs_something = re.match("run(_|$)", path.split("#")[0]) and path.count("#") == 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            # References with literals, as a literal is: [0.0], None.
            sides = [node.left, *node.comparators]
            if sum(any(isinstance(n, ast.Name) for n in ast.walk(side)) for side in sides) != 1:
                yield "Compare"
        elif isinstance(node, ast.Name) and not node.id.startswith("_"):
            if not (runs_something and node.id == "print"):
                yield node.id
        elif isinstance(node, ast.Not) and path.endswith("_disabled_"):
            continue
        elif not isinstance(node, (*ALLOWED, ast.cmpop)):
            if not (runs_something and isinstance(node, ast.Call)):
                yield type(node).__name__


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(runs.ROOT / "bundles")))
def test_a_value_is_a_literal_a_reference_or_a_component(path):
    """An expression is arithmetic on references, their items and attributes; only what is run calls something."""
    others = OTHERS.get(f"{path.parent.parent.name}/{path.stem}", set())
    found = set()
    for key, text in strings_in(CONFIGS[path]):
        assert not re.match(r"%.*\.json", text), text
        # MONAI takes the first name of ``from x import a, b`` and leaves out the others with a warning.
        assert not re.match(r"\$(from .* )?import .*,", text), text
        if text.startswith("$") and (wrong := [*problems(key, text)]):
            known = next((other for other in others if key == other or key.startswith(f"{other}/")), None)
            assert known, f"{key}: {text} has {wrong}"
            found.add(known)
    assert found == others


@pytest.mark.parametrize("bundle", runs.BUNDLES)
def test_the_network_is_one_for_torchscript(bundle):
    """Which an export needs."""
    network = runs.content(bundle, "network_def", "inference", **runs.TINY[bundle].network)
    assert isinstance(torch.jit.script(network), torch.jit.ScriptModule)


def test_a_target_is_no_module():
    """A component that is called as a module is that module, from Python 3.12 on."""
    targets = {text for config in CONFIGS.values() for key, text in strings_in(config) if key.endswith("_target_")}
    assert len(targets) > 100
    for target in targets:
        if target.startswith("$") or "." not in target:
            continue  # a reference, or MONAI's own by its name
        home, name = target.rsplit(".", 1)
        modules = pkgutil.iter_modules(getattr(pkgutil.resolve_name(home), "__path__", []))
        assert name not in {module.name for module in modules}, target


def test_an_expression_that_a_component_should_be_is_found():
    for key, text in (
        ("run", "$@a.run() + @b#c[1:].x"),
        ("run_one", "$print(@a)"),
        ("a", "$[@b.c, -2 * @d[0]] + @e"),
        ("imports", "$import os"),
        ("a", "$@b == [0.0]"),
        ("a", "$@b is None"),
    ):
        assert not [*problems(key, text)], text
    for key, text, *wrong in (
        ("a", "$@b.c()", "Call"),
        ("a", "$is_true(@b)", "Call", "is_true"),
        ("train#run", "$@b()", "Call"),
        ("a", "$1 if @b else 2", "IfExp"),
        ("a", "$@b == @c", "Compare"),
        ("a", "$not @b", "Not"),
        ("a", "$[x for x in @b]", "ListComp", "comprehension", "x", "x", "Store"),
        ("run", "$lambda: @b", "Lambda", "arguments"),
        ("a", "${'b': @c}", "Dict"),
    ):
        assert sorted(problems(key, text)) == sorted(wrong), text
