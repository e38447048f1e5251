"""What all configs keep to."""

import json
import pkgutil
import re

import pytest

from . import runs

CONFIGS = {
    path: json.loads(path.read_text())
    for path in sorted(runs.ROOT.glob("bundles/*/configs/*.json"))
    if path.stem not in ("metadata", "tables")
}


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


def test_no_config_reads_another_or_imports_what_monai_leaves_out():
    """Of ``from x import a, b`` MONAI takes the first name, with a warning."""
    texts = [text for config in CONFIGS.values() for _, text in strings_in(config)]
    assert len(texts) > 1000
    assert not [text for text in texts if re.match(r"%.*\.json|\$(from .* )?import .*,", text)]


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


@pytest.mark.parametrize("bundle", runs.BUNDLES)
def test_the_wanted_grid_takes_the_place_of_a_step_that_every_inference_has(bundle):
    """``grid.json`` replaces it by its number."""
    steps = CONFIGS[runs.ROOT / "bundles" / bundle / "configs" / "inference.json"]["postprocessing"]["transforms"]
    names = [step["_target_"].rpartition(".")[2] for step in steps]
    assert names == ["RestoreVolumed", "SaveVolumed"] or "ResampleToFiled" in names  # of exams
