"""The docs: their links, tables and commands; ``.ci/sizes`` warns of long pages and sentences."""

import csv
import json
import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from common import __main__
from common.cli_help import find_usage_problems, order_words
from common.override_checks import check_overrides
from common.start import read_arguments

ROOT = Path(__file__).parents[1]
KEPT = (
    "README.md",
    ".github/*.md",
    ".docs/*.md",
    "bundles/*.md",
    "bundles/*/docs/*.md",
    "common/**/*.md",
    "tests/**/*.md",
)
FILES = sorted(path.relative_to(ROOT).as_posix() for pattern in KEPT for path in ROOT.glob(pattern))
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def anchors(name: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", PAGES[name]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(*kinds: str) -> list[tuple[str, str]]:
    return [(name, code) for name, text in PAGES.items() for kind, code in FENCE.findall(text) if kind in kinds]


@pytest.mark.parametrize("name", FILES)
def test_links_hold(name):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", PAGES[name])):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = os.path.normpath(ROOT / Path(name).parent / path) if path else ROOT / name
        page = os.path.relpath(file, ROOT)
        if not Path(file).exists() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("name", [name for name in FILES if "<!-- table:" in PAGES[name]])
def test_tables_are_those_of_their_csv(name):
    for file, table in re.findall(r"<!-- table: (\S+) -->\n((?:\|.*\n?)+)", PAGES[name]):
        cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in table.strip().splitlines()]
        plain = [[re.sub(r"[`*_]|\[([^]]*)\]\([^)]*\)", r"\1", cell) for cell in row] for row in cells]
        with (ROOT / Path(name).parent / file).open(newline="", encoding="utf-8") as source:
            written = [[re.sub(r"[`*_]", "", cell.strip()) for cell in row] for row in csv.reader(source)]
        assert [plain[0], *plain[2:]] == written, file


@pytest.mark.parametrize("bundle", ["udean_window", "ct_guided"])
def test_gains_are_over_people(bundle):
    """The last line of ``people.csv`` is mean and deviation; README has the number of people and the ranges."""
    with (ROOT / "bundles" / bundle / "docs" / "people.csv").open(encoding="utf-8") as source:
        *people, last = csv.DictReader(source)
    columns = [name for name in last if re.match("gain|data consistency", name)]
    row = next(line for line in PAGES["README.md"].splitlines() if f"| [{len(people)}](bundles/{bundle}/" in line)
    for name in columns:
        gains = [float(person[name]) for person in people]
        mean, deviation = map(float, last[name].split("±"))
        # Gains and mean were truncated, and more digits not kept. So the mean may differ; the deviation is rounded.
        assert -0.01 < mean - np.mean(gains) < 0.01 and deviation == round(np.std(gains, ddof=1), 2)
        if name in columns[:2]:
            assert f"{min(gains):.2f} to {max(gains):.2f} dB" in row


def mean_over_people(rows: list[dict], column: str, person: str, digits: int, part: int = 0) -> float:
    """The mean over people of a column; a person's contrasts are one person, and a cell may hold PSNR and SSIM."""
    values: dict[str, list[float]] = {}
    for row in rows:
        name = re.sub("^(T1w|T2w|FLAIR|kirby113.*)$", "kirby113", row[person])
        values.setdefault(name, []).append(float(re.split("[,/] ?", row[column])[part]))
    return round(float(np.mean([np.mean(each) for each in values.values()])), digits)


def test_eval_metrics_are_means_over_people():
    def read(bundle: str, file: str) -> list[dict]:
        with (ROOT / "bundles" / bundle / "docs" / file).open(encoding="utf-8") as source:
            return [row for row in csv.DictReader(source) if not row.get("person", "").startswith("mean")]

    expected: dict[str, dict] = {}
    window = read("udean_window", "people.csv")
    window = [{**row, "SR": str(float(row["cubic 2x2x2"]) + float(row["gain 2x2x2"]))} for row in window]
    expected["udean_window"] = {"people": len(window)}
    expected["udean_window"] |= {
        f"psnr_2x2x2{end}": mean_over_people(window, column, "person", 2)
        for end, column in {"": "SR", "_cubic": "cubic 2x2x2"}.items()
    }
    scans = [row for row in read("guided_rdn", "real_scans_ssim.csv") if row["LR by"] == "truncation"]
    guided = [row for row in scans if row["guided RDN"] != "–"]
    kernels = read("downsampling_gan", "weights_ssim.csv")
    expected["guided_rdn"] = {"people": 2, "people_with_guide": 1}
    expected["ct_guided"] = {"people": len(read("ct_guided", "people.csv"))}
    expected["downsampling_gan"] = {"people": 2}
    for part, (metric, digits) in enumerate({"psnr": 2, "ssim": 4}.items()):
        for bundle, size, rows, person, columns in (
            (
                "ct_guided",
                "1x1x4",
                read("ct_guided", "people.csv"),
                "person",
                {"": "not fine-tuned", "_cubic": "cubic"},
            ),
            ("downsampling_gan", "2x2x1", kernels, "volume", {"": "shipped weights", "_cubic": "cubic"}),
            ("guided_rdn", "2x2x1", scans, "scan", {"_unguided": "RDN", "_cubic": "cubic"}),
            ("guided_rdn", "2x2x1", guided, "scan", {"_guided": "guided RDN", "_guided_cubic": "cubic"}),
        ):
            for end, column in columns.items():
                expected[bundle][f"{metric}_{size}{end}"] = mean_over_people(rows, column, person, digits, part)
    stacks = {
        row["stacks"].split(",")[0]: row["unmoved"] for row in read("stacks", "stacks.csv") if "DC" not in row["stacks"]
    }
    expected["stacks"] = {"people": 3} | {
        f"psnr_1x1x4_{count}_stack{'s' * (count != 'one')}": round(float(np.mean([*map(float, cells.split(","))])), 2)
        for count, cells in stacks.items()
    }
    found = {
        path.parents[1].name: json.loads(path.read_text()) for path in ROOT.glob("bundles/*/configs/metadata.json")
    }
    assert {name: meta["eval_metrics"] for name, meta in found.items() if "eval_metrics" in meta} == expected


def commands() -> list[tuple[str, str]]:
    """Each command of a page that shells would run, with the variables that the page sets."""
    found, pages = [], {}
    for name, code in blocks("bash", "sh"):
        known = pages.setdefault(name, {})
        for line in code.replace("\\\n", " ").splitlines():
            if match := re.fullmatch(r"(\w+)=(\S+|'.*'|\".*\")", line):
                known[match[1]] = match[2].strip("'\"")
            for key, value in known.items():
                line = line.replace(f'"${key}"', shlex.quote(value))
                line = re.sub(rf"\${key}\b", lambda _, value=value: value, line)
            line = re.sub(
                r"^(OMP_NUM_THREADS=\d+ |torchrun --\S+ -m )+", lambda m: "python -m " if "-m" in m[0] else "", line
            )
            found.append((name, line))
    return found


# Not those in the folder of an exported bundle, or of a bundle that the reader makes.
OTHERS = re.compile("configs/inference.json$|--config_file configs/inference.json|'configs/|bundles/mynet")
RUNS = [
    (n, line) for n, line in commands() if line.startswith("python -m monai.bundle run") and not OTHERS.search(line)
]
OURS = [(n, line) for n, line in commands() if re.match(r"(python -m common|mri-sr) ", line)]


@pytest.mark.parametrize(("name", "line"), RUNS)
def test_the_configs_and_keys_of_runs_are_there(name, line):
    """What the reader makes is left out: overlays of weights, and others."""
    given = shlex.split(re.sub(r"\s# .*", "", line))[3:]
    at = given.index("--config_file") + 1
    files = given[at].strip("[]").replace("'", "").split(",")
    there = [file for file in files if (ROOT / file).is_file()]
    trained = [file for file in files if file not in there]
    saved = re.findall(r"Save this as `(\w+\.json)`", (ROOT / name).read_text(encoding="utf-8"))
    assert there and all(file in saved or re.search(r"models/model\w*\.json$", file) for file in trained), trained
    given[at] = str([str(ROOT / file) for file in there])
    check_overrides(read_arguments(given[1:]))


@pytest.mark.parametrize(("name", "line"), OURS)
def test_commands_take_what_the_docs_give_them(name, line):
    given = shlex.split(re.split(r" && | \| |; ", line)[0], comments=True)
    given = given[3:] if given[0] == "python" else given[1:]
    if given[0] not in __main__.read_summaries():
        given.insert(0, "super-resolve")
    command = __main__.get_command(given[0])
    assert "--help" in given or not find_usage_problems(command, order_words(command, given[1:]))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [each for each in blocks("python") if each[0] == "common/docs/python.md"])
def test_python_runs_as_printed(name, code, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "block.py").write_text(code)
    runpy.run_path(str(tmp_path / "block.py"))


def test_the_notebook_runs_as_stored(monkeypatch, capsys):
    """Its cells print what it holds, and its result is nearer to HR than cubic interpolation."""
    monkeypatch.chdir(ROOT / "common" / "docs")
    monkeypatch.setattr("sys.path", [*sys.path])
    values = {}
    for cell in json.loads(Path("first_steps.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), values)
            printed = capsys.readouterr().out
            assert all("".join(out.get("text", "")) in printed for out in cell["outputs"])
    errors = [float(np.square(values[name] - values["hr"]).mean()) for name in ("sr", "cubic")]
    assert errors[0] < 0.9 * errors[1]
    assert len(values["figure"].axes) == 3
    plt.close(values["figure"])


def test_json_is_json():
    for _, code in blocks("json"):
        json.loads(code)
