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
from common.program.cli_help import find_usage_problems, order_words
from common.runtime.unknown_keys import refuse_unknown_keys
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


@pytest.mark.parametrize("bundle", ["udean_window", "ct_guided", "guided_rdn"])
def test_gains_are_of_their_people(bundle):
    """Of ``gains.csv``, and of README's row."""
    docs = ROOT / "bundles" / bundle / "docs"
    people, table = (list(csv.DictReader((docs / name).open())) for name in ("people.csv", "gains.csv"))
    for row in table:
        of = [person for person in people if person["data"] == row["data"] and person[row["method"]]]
        assert len(of) == int(row["people"])
        for key, method, against, k, digits in (
            ("PSNR", row["method"], "cubic", 0, 2),
            ("SSIM", row["method"], "cubic", 1, 4),
            ("data consistency alone", "data consistency", "cubic", 0, 2),
            ("over it", row["method"], "data consistency", 0, 2),
        ):
            scores = np.array([[float(person[name].split("/")[k]) for name in (method, against)] for person in of])
            gains = (scores[:, 0] - scores[:, 1]).round(4)
            assert row[key] == f"{gains.mean():+.{digits}f}±{gains.std(ddof=1):.{digits}f}"
            assert key != "PSNR" or row["least to most"] == f"{gains.min():+.2f} to {gains.max():+.2f}"
    known = {
        (row["data"], row["people"], row["PSNR"][:5], row["least to most"], row["data consistency alone"][:5])
        for row in table
    }
    cells = r"(\d+): ([+-][\d.]+) \(([^)]*)\) \| ([+-][\d.]+)"
    said = [
        (task, *cell)
        for line in PAGES["README.md"].splitlines()
        for task in re.findall(rf"^\| `{bundle}` \| \[(.*, T[12]w)", line)
        for cell in re.findall(cells, line)
    ]
    assert said
    for task, *cell in said:
        assert any(row[0].startswith(task) and list(row[1:]) == cell for row in known), task


# Of each key but for psnr_ and ssim_: the CSV, what its data begin with, the columns that name people and have scores.
KERNELS = ("weights_ssim.csv", "", "volume")
METRICS = {
    "udean_window": {
        "2x2x2": ("people.csv", "2x2x2, T1w", "person", "UDEAN window"),
        "2x2x2_cubic": ("people.csv", "2x2x2, T1w", "person", "cubic"),
    },
    "ct_guided": {
        "1x1x4": ("people.csv", "1x1x4, T1w", "person", "fine-tuned"),
        "1x1x4_cubic": ("people.csv", "1x1x4, T1w", "person", "cubic"),
    },
    "downsampling_gan": {"2x2x1": (*KERNELS, "shipped weights"), "2x2x1_cubic": (*KERNELS, "cubic")},
    "guided_rdn": {
        "2x2x1_unguided": ("people.csv", "2x2x1, T2w", "person", "RDN"),
        "2x2x1_cubic": ("people.csv", "2x2x1, T2w", "person", "cubic"),
    },
}


@pytest.mark.parametrize("bundle", METRICS)
def test_eval_metrics_are_means_over_people(bundle):
    """Contrasts of one person are one person."""
    meta = json.loads((ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())["eval_metrics"]
    people, _ = meta.pop("people"), meta.pop("data")
    assert {key.partition("_")[2] for key in meta} == METRICS[bundle].keys()
    for key, value in meta.items():
        metric, _, name = key.partition("_")
        file, data, person, column = METRICS[bundle][name]
        values: dict[str, list[float]] = {}
        with (ROOT / "bundles" / bundle / "docs" / file).open(encoding="utf-8") as source:
            for row in csv.DictReader(source):
                if row.get("data", "").startswith(data):
                    who = re.sub("^kirby113.*$", "kirby113", row[person])
                    values.setdefault(who, []).append(float(re.split("[,/] ?", row[column])[metric == "ssim"]))
        assert value == round(float(np.mean([np.mean(each) for each in values.values()])), 2 if metric == "psnr" else 4)
        assert len(values) == people


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
    refuse_unknown_keys(read_arguments(given[1:]))


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


def test_what_weights_gain_over_total_variation_is_of_their_people():
    with (ROOT / "bundles/udean_window/docs/people.csv").open() as file:
        people = list(csv.DictReader(file))
    for data in ("2x2x2, T1w", "2x2x1, T2w"):
        of = [person for person in people if person["data"].startswith(data)]
        scores = [[float(person[name].split("/")[0]) for name in ("UDEAN window", "total variation")] for person in of]
        gains = np.subtract(*np.transpose(scores)).round(4)
        for page in ("README.md", "bundles/udean_window/docs/results.md"):
            assert f"{gains.mean():.2f}±{gains.std(ddof=1):.2f}" in PAGES[page] and gains.min() > 0


@pytest.mark.parametrize("name", ["added", "anatomy", "interval", "repeated", "scores"])
def test_evidence_is_of_the_weights_that_ship_and_its_means_are_of_its_people(name):
    docs = ROOT / "common" / "lab" / "tables" / "docs"
    people = list(csv.DictReader((docs / f"evidence_{name}.csv").open()))
    for row in people:
        overlays = (ROOT / "bundles" / row["weights"].split()[0] / "models").glob("*.json")
        assert row["digest"] in {json.loads(file.read_text())["digest"][:8] for file in overlays}
        assert f"`{row['digest']}`" in PAGES["common/lab/tables/docs/evidence.md"]
    if (means := docs / f"evidence_{name}_means.csv").exists():
        for row in csv.DictReader(means.open()):
            of = [each for each in people if (each["weights"], each["region"]) == (row["weights"], row["region"])]
            for label in row.keys() - {"weights", "region", "people"}:
                key, _, method = label.partition(", ")
                values = [float(each[key]) for each in of if each["method"] == method]
                mean, spread = row[label].split("±")
                half = 0.51 * 10 ** -len(mean.partition(".")[2])  # of the last digit
                assert len(values) == int(row["people"])
                assert float(mean) == pytest.approx(np.mean(values), rel=0, abs=half)
                assert float(spread) == pytest.approx(np.std(values, ddof=1), rel=0, abs=half)
