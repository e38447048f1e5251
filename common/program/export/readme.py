"""The pages of an exported bundle; its README has the sections of the model zoo's template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...data.lists.datalist import FILE, GROUPS
from .modules import rename_package

PINNED = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}  # keys of metadata.json
FENCE = re.compile(r"^```\w*\n.*?^```\n?", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"^!\[.*\n(?:\n\*.*\*\n)?", re.MULTILINE)  # with its caption
DURATION = re.compile(r"(?:learned|takes|took)\b.* \d+ (?:h|min|s)\b")
DIRECTIONS = {(2, 2, 2): "3-D", (2, 2, 1): "In-Plane", (1, 1, 4): "Through-Plane"}  # by scale
COLLECTION = "Demos, and commands with `mri-sr` or `python -m tests`, are those of the collection that has this bundle."


def write_pages(
    docs: Path, package: str, meta: Mapping[str, Any], configs: Mapping[str, Any], weights: Mapping
) -> None:
    """Rewrite the pages of an exported bundle, README.md in the sections of the zoo's template.

    On Hugging Face README.md lies in the folder above docs, where links to docs do not hold. So it names files, and its
    pictures go to results.md.

    Args:
        docs: folder of the pages, as they are in the repository; the bundle's folder holds it.
        package: name of the bundle's package.
        meta: content of metadata.json.
        configs: of the bundle, by name.
        weights: overlays of the weights in models, by name.
    """
    name = docs.parent.name
    texts = {page: _localize(page.read_text(encoding="utf-8"), name, package) for page in docs.glob("*.md")}
    readme, results = texts[docs / "README.md"], texts.get(docs / "results.md", "")
    texts[docs / "README.md"] = _make_readme(readme, results, meta, configs, weights)
    if results:
        title, _, rest = results.partition("\n")
        texts[docs / "results.md"] = "\n".join([title, "", COLLECTION, rest, *PICTURE.findall(readme)])
    for page, text in texts.items():
        page.write_text(text, encoding="utf-8")


def _localize(text: str, name: str, package: str) -> str:
    """A page with the bundle's paths and names, without links that leave its folder and what nobody filled in."""
    text = "".join(_drop_gaps(section) for section in re.split("^(?=## )", text, flags=re.MULTILINE))
    text = re.sub(r"[^.\n]*\[[^]]*\]\(\.\./\.\./README\.md[^)]*\)\. ?", "", text)  # to what all bundles share
    text = re.sub(r"\[([^]]*)\]\(\.\./\.\./[^)]*\)", r"\1", text)
    return re.sub(rf"bundles/{name}\b/?", "", rename_package(text, package))


def _drop_gaps(section: str) -> str:
    """A section of a page without what its author has not filled in; "" if nothing is left but a table's head."""
    if "FILL IN" not in section:
        return section
    lines = [line for line in section.splitlines(keepends=True) if "FILL IN" not in line]
    return "".join(lines) if any(line.strip() and line[0] not in "#|" for line in lines) else ""


def _make_readme(
    page: str, results: str, meta: Mapping[str, Any], configs: Mapping[str, Any], weights: Mapping[str, Mapping]
) -> str:
    """The README by the bundle's own, its results and metadata; a section of which nothing is known is left out."""
    title, intro, sections = _split(PICTURE.sub("", page).replace("[Measurements](results.md).", ""))
    _, _, measured = _split(FENCE.sub("", PICTURE.sub("", results)))
    intro = FENCE.sub("", intro)
    if weights:
        intro = re.sub(r"No weights ship[^.]*\.", "The weights are `models/model.pt`.", intro)
    idea, options, limits, cite = (sections.pop(name, "") for name in ("Idea", "Options", "When not", "Cite"))
    measured.pop("Demo", None)  # with the collection only
    references = meta.get("references", [])
    datalist = re.search("^mri-sr datalist (.*)$", page, re.MULTILINE)
    parts = {
        "### **Authors**": [meta["authors"]],
        "### **Tags**": [_list_tags(meta)],
        "## **Model Description**": [intro.strip() or meta["description"], idea, *_list_sections(sections)],
        "## **Data**": [
            _describe_data(meta.get("data_source", "see docs/data_license.txt")),
            *_list_sections({"Preprocessing": _describe_input(meta, datalist and datalist[1])}),
        ],
        "## **Performance**": [
            _list_metrics(meta.get("eval_metrics", {})),
            "All measurements: `docs/results.md`." if results else "",
        ],
        "## **Additional Usage Steps**": [
            _list_commands(meta, configs, weights),
            *_list_sections({"Options": _drop_missing(options, configs)}),
        ],
        "## **System Configuration**": _describe_system(measured, weights),
        "## **Limitations**": [limits and f"When not to use it:\n\n{limits.strip()}", meta.get("intended_use", "")],
        "## **Citation Info**": references[:1] or [cite],  # a page may say that it is that of another bundle
        "## **References**": [f"[{i}] {reference}" for i, reference in enumerate(references[1:], start=1)],
        "## **License**": [meta["copyright"], "Licensed under the Apache License, Version 2.0; see `LICENSE`."],
    }
    bodies = {heading: "\n\n".join(text.strip() for text in texts if text.strip()) for heading, texts in parts.items()}
    text = "".join(f"\n{heading}\n\n{body}\n" for heading, body in bodies.items() if body)
    text = re.sub(r"\n{3,}", "\n\n", text)
    return f"# {title}\n" + re.sub(r"\[([^]]*)\]\((?!https?:)([^)#]*)[^)]*\)", _name_file, text)


def _name_file(link: re.Match) -> str:
    """The text of a link, and in brackets the file in docs that it leads to."""
    text, file = link.groups()
    if text in (file, file.removesuffix(".md")):
        return f"`docs/{file}`"
    return text if file in ("", "README.md") else f"{text} (`docs/{file}`)"


def _drop_missing(options: str, configs: Mapping[str, Any]) -> str:
    """Tables of options, without rows of keys and overlays that the export lacks, such as those of ``mri-sr``."""

    known = {*(f"{name}.json" for name in configs), *(f"--{key}" for config in configs.values() for key in config)}
    lines = options.splitlines(keepends=True)
    return "".join(
        line for line in lines if known.issuperset(re.findall(r"`(--\w+|\w+\.json)", line[: line.find("|", 1)]))
    )


def _split(page: str) -> tuple[str, str, dict[str, str]]:
    """The title of a page, what stands before the first section, and the sections by their headings."""
    first, *rest = re.split("^## ", page, flags=re.MULTILINE)
    title, _, intro = first.removeprefix("# ").partition("\n")
    return title, intro, {heading: body for heading, _, body in (part.partition("\n") for part in rest)}


def _list_sections(sections: Mapping[str, str]) -> list[str]:
    """Sections within one of the template; those without text are left out."""
    return [f"#### **{heading}**\n\n{text.strip()}" for heading, text in sections.items() if text.strip()]


def _list_tags(meta: Mapping[str, Any]) -> str:
    selection = meta.get("selection", {})
    kinds = {"Guided": "guided" in selection, "Self-Supervised": "learns_from_scan" in selection}
    kinds |= {
        "Unpaired": "unpaired" in meta["task"] or "unmatched" in meta["task"],
        "Several Scans": "fewest_stacks" in selection,
    }
    tags = [
        "Super-Resolution",
        "MR",
        DIRECTIONS.get(tuple(selection.get("scale", ()))),
        *(k for k in kinds if kinds[k]),
    ]
    return ", ".join(tag for tag in tags if tag)


def _describe_data(source: str) -> str:
    return f"{source[:1].upper()}{source[1:]}.".replace("docs/data_license.txt", "`docs/data_license.txt`")


def _describe_input(meta: Mapping[str, Any], datalist: str | None) -> str:
    """What the network takes and gives, and the file that training reads, for options of the command datalist."""
    text = f"The network takes {meta['image_classes']}. It gives {meta['pred_classes']}."
    if datalist is None:
        return text
    given = dict(re.findall(r'--(\w+) "?([^\s"]+)', datalist))
    scans = [kind for kind in ("hr", "guide") if kind in given]
    kinds = {group: scans for group in GROUPS}
    if "test" in given:
        kinds = {"test": scans}
    elif "ct" in given:
        kinds = {"source": ["ct"], "target": ["lr"], "validation": ["lr"], "test": ["hr"]}
    elif "paired" in given:
        kinds = {group: ["hr", "lr"] for group in ("source", "validation", "test")}
    elif "lr" in given:
        kinds["target"] = ["lr"]
    elif "split" in given:
        kinds = {group: scans for group, share in zip(GROUPS, given["split"].split(","), strict=True) if share != "0"}
    rows = []
    for i, group in enumerate(kinds, start=1):
        entry = {"subject": f"sub-{i:02}"} | {kind: f"sub-{i:02}_{kind}.nii.gz" for kind in kinds[group]}
        rows.append(f'  "{group}": [{json.dumps(entry)}]')
    listing = ",\n".join(rows)
    reads = f"`{FILE}` in the folder `dataset_dir` lists what to train and evaluate on, with paths in that folder:"
    return f"{text}\n\n{reads}\n\n```json\n{{\n{listing}\n}}\n```"


def _list_metrics(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return ""
    people, data, *keys = metrics
    names = {key: key.replace("_", " ").replace("psnr", "PSNR in dB,").replace("ssim", "SSIM,") for key in keys}
    rows = [f"| {name} | {metrics[key]} |" for key, name in names.items()]
    first = f"Means over {metrics[people]} people. {metrics[data]}."
    return "\n".join([first, "", "| metric | mean |", "|---|---|", *rows])


def _list_commands(meta: Mapping[str, Any], configs: Mapping[str, Any], weights: Mapping[str, Mapping]) -> str:
    """Commands to install, apply, train and evaluate, by the configs and weights that there are."""
    versions = {name: meta[key] for name, key in PINNED.items() if key in meta} | meta["required_packages_version"]
    lines = ["# Install", "pip install " + " ".join(f"{name}=={version}" for name, version in versions.items())]

    def add(what: str, files: Sequence[str], options: str) -> None:
        listed = files[0] if len(files) == 1 else '"' + str([*files]).replace(" ", "") + '"'
        lines.extend([f"# {what}", f"python -m monai.bundle run --config_file {listed} {options}"])

    inference, train, alone = (f"configs/{name}.json" for name in ("inference", "train", "scan_alone"))
    selection, keys = meta.get("selection", {}), configs["inference"]
    what = "an exam: a folder of its scans" if "fewest_stacks" in selection else "a scan or a folder of scans"
    if "guided" in selection:
        what = f"a folder of scans, {keys['lr']}, with guides, {keys['guide']}"
    apply, learn = "--dataset_dir SCANS --output_dir SR", "--dataset_dir D --output_dir"
    add(f"Super-resolve {what}", [inference], apply)
    if others := [name for name in weights if name != "model"]:
        listed = ", ".join(f"{name} ({'x'.join(map(str, weights[name]['scale']))})" for name in others)
        add(f"The same by other weights: {listed}", [inference, f"models/{others[0]}.json"], apply)
    tested = [train if "train" in configs else inference]
    if "scan_alone" in configs:
        tested += [alone]
    elif "train" in configs:
        add("Train", [train], f"{learn} W")
        if weights:
            add("Train, from these weights on", [train], f"{learn} W2 --initial models/model.pt")
            tested += ["models/model.json"]
        add("Super-resolve by what was trained", [inference, "W/models/model.json"], apply)
    if "evaluate" in configs:
        tested.insert(1 + ("scan_alone" in configs), "configs/evaluate.json")
        add("Evaluate on the test group", tested, "--dataset_dir D --output_dir E")
    block = "\n".join(lines)
    data = ", D those of `dataset.json`" if "--dataset_dir D" in block else ""
    where = f"In the folder that holds `configs`. SCANS holds LR scans{data}; other folders are written."
    return f"{where}\n\n```bash\n{block}\n```"


def _describe_system(measured: Mapping[str, str], weights: Mapping[str, Mapping]) -> list[str]:
    """Hardware, the last training of the weights, and durations from results.md."""
    trained, facts = weights.get("model", {}).get("trained", {}), []
    if {"iteration", "machine", "precision"} <= trained.keys():
        facts = ["Last training: {iteration:,} iterations on {machine}, {precision}.".format(**trained)]
    for text in measured.values():
        facts += [sentence for sentence in re.split(r"(?<=\.)\s+(?:- )?", text) if DURATION.search(sentence)]
    return ["A GPU with CUDA is used if there is one, else the CPU.", " ".join(facts)]
