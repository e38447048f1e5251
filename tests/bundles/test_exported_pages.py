"""The pages of exported bundles: the model zoo's sections, commands that run, and files that are there."""

import json
import re
import shlex
import shutil

import pytest

from common.data.lists.datalist import GROUPS, KINDS
from common.program.commands.export import COLLECTION
from common.program.export.readme import write_pages
from common.runtime.unknown_keys import refuse_unknown_keys
from common.start import read_arguments

from . import runs

# Of docs/readme_template.md of the zoo, and the licence that its bundles end with.
SECTIONS = [
    "Authors", "Tags", "Model Description", "Data", "Performance", "Additional Usage Steps", "System Configuration",
    "Limitations", "Citation Info", "References", "License",
]  # fmt: skip
BUNDLES = sorted(path.parents[1].name for path in runs.ROOT.glob("bundles/*/configs/metadata.json"))


def read_sections(text: str) -> dict[str, str]:
    """The sections of the zoo's template in a page, by their headings."""
    _, *parts = re.split(r"^(?:##|###) \*\*(.*)\*\*$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def copy_pages(bundle, folder, overlays):
    """Write a bundle's pages as an export does, with overlays that stand for its weights."""
    source = runs.ROOT / "bundles" / bundle
    configs = {path.stem: json.loads(path.read_text()) for path in source.glob("configs/*.json")}
    configs = {name: config for name, config in configs.items() if name not in COLLECTION}
    shutil.copytree(source / "docs", folder / bundle / "docs")
    write_pages(folder / bundle / "docs", f"{bundle}_v1", configs["metadata"], configs, overlays)
    return (folder / bundle / "docs" / "README.md").read_text(), configs


@pytest.mark.parametrize("bundle", BUNDLES)
def test_readme(bundle, tmp_path, monkeypatch):
    """All sections have something in them; files and keys exist; nothing is of the collection that is left behind."""
    source = runs.ROOT / "bundles" / bundle
    overlays = {path.stem: json.loads(path.read_text()) for path in sorted(source.glob("models/*.json"))}
    text, configs = copy_pages(bundle, tmp_path, overlays)
    meta, found = configs["metadata"], read_sections(text)
    # The first reference is the citation.
    expected = [name for name in SECTIONS if name != "References" or len(meta["references"]) > 1]
    assert list(found) == expected and all(part.strip() for part in found.values())
    known = {*configs, *(key for config in configs.values() for key in config)}
    assert {*re.findall(r"^\| `(?:--)?(\w+)", found["Additional Usage Steps"], re.MULTILINE)} <= known
    title = (source / "docs" / "README.md").read_text().partition("\n")[0]
    assert text.startswith(f"{title}\n") and meta["authors"] in found["Authors"]
    assert "mri-sr datalist" not in text and "common." not in text and f"bundles/{bundle}" not in text
    assert "](" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL), "links do not hold on Hugging Face"
    named = re.findall(r"`(docs/[^`]+)`", text)
    assert named and all((tmp_path / bundle / file).is_file() for file in named)
    for key, value in meta.get("eval_metrics", {}).items():
        assert str(value) in found["Performance"], key

    block = re.search(r"^```bash\n(.*?)^```", found["Additional Usage Steps"], re.MULTILINE | re.DOTALL)[1]
    install, *lines = [line for line in block.splitlines() if not line.startswith("#")]
    listed = meta["required_packages_version"].items()
    assert install.startswith("pip install monai==") and all(f" {name}=={v}" in install for name, v in listed)
    monkeypatch.chdir(source)
    applied = set()
    for line in lines:
        given = shlex.split(line)[3:]
        at = given.index("--config_file") + 1
        files = given[at].strip("[]").replace("'", "").split(",")
        given[at] = str([str(source / file) for file in files if not file.startswith("W/")])
        refuse_unknown_keys(read_arguments(given[1:]))  # also that the files exist
        applied |= {*files}
    wanted = {f"configs/{name}.json" for name in {"train", "inference", "evaluate"} & configs.keys()}
    assert wanted <= applied and ("models/model.json" in applied) == ("train" in configs and bool(overlays))

    listing = re.search(r"^```json\n(.*?)^```", found["Data"], re.MULTILINE | re.DOTALL)
    groups = json.loads(listing[1]) if listing else {}
    assert groups.keys() <= {*GROUPS} and ("test" in groups) == ("evaluate" in configs)
    assert all(entry.keys() <= {"subject", *KINDS} for entries in groups.values() for entry in entries)


def test_own_weights_and_gaps(tmp_path):
    """With weights the page says so; what nobody filled in is left out, as sections are of which nothing is known."""
    source = shutil.copytree(runs.ROOT / "bundles" / "udean" / "docs", tmp_path / "udean" / "docs")
    page = source / "README.md"
    gaps = "\n## A gap\n\n| a |\n|---|\n| FILL IN |\n\n## The rest\n\n- FILL IN\n- That.\n"
    text = re.sub(r"(?<=## Idea\n\n)(?:.|\n)*?(?=## When not)", "FILL IN\n\n", page.read_text()) + gaps
    page.write_text(re.sub(r"^(?=## Cite)(?:.|\n)*?(?=\n## A gap)", "", text, flags=re.MULTILINE))
    meta = {"authors": "A", "copyright": "C", "task": "T", "description": "D", "image_classes": "I"}
    meta |= {"pred_classes": "P", "required_packages_version": {}}
    write_pages(source, "udean_v1", meta, {"inference": {}}, {"model": {}})
    found = read_sections(page.read_text())
    assert [name for name in SECTIONS if name not in found] == ["Citation Info", "References"]
    assert "A gap" not in page.read_text() and "FILL IN" not in page.read_text()
    assert "The weights are `models/model.pt`." in found["Model Description"]
    assert "#### **The rest**\n\n- That." in found["Model Description"]
