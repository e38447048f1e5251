"""Train and evaluate the rows of the papers' theses, one after another, beside other work.

    python -m common.lab.queue --volumes FOLDER [FOLDER ...]    # starts, or goes on
    python -m common.lab.queue --look

``rows.json`` lists the rows in order of worth, and is read at the commit. Each names a row of a bundle's
``tables.json``, or has its keys itself. A row with ``choose`` first has a trial for each value of a key. The value with
the highest PSNR on the person of ``tried_on`` is taken; one whose training diverges is not. ``like`` takes the value of
another row. ``best`` is the row of these with the best trial. Training begins with the weights of the row ``start``
with the same seed, which is trained first. It waits until the row ``twin`` has gained 0.5 dB over cubic. ``also`` lists
further evaluations of the first seed, in another table, on other data or with other keys.

A row runs with one thread at the lowest priority, in a clone of the commit, so changes of the work tree do not reach
it. If the queue is stopped, also by kill -9, the row goes on from its state in --folder, at the commit that began it.
If its definition has changed since, it begins again. Several queues may run at once in one work tree: each takes the
next free row. ``results.csv`` gets a line for each row, seed and person.

A row without its volumes is left out. A failed row does not stop the others, and begins again at the next start. Both
are listed at the end, and then the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ...runtime.machine import name_machine
from .child import run_program
from .units import ROW, Unit, find_lines, find_start, list_units, make_table, measure_gain, read_book

ROOT, HERE = Path(__file__).parents[3], Path(__file__).parent
RESULTS = HERE / "results.csv"
SCORES = ("psnr", "ssim", "psnr_registered", "shift")
OF_TRAINING = ("iterations", "seconds", "machine", "precision")
COLUMNS = (*ROW, "set", "person", *SCORES, *OF_TRAINING, "commit")
SUBJECT = r"person_\d+|[^/.]+"  # in a file's name
LAST_WORDS = 20  # seconds for a training to save its state


class Queue:
    """Runs the units that are not done.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder = options.folder.resolve()
        self.deadline = time.monotonic() + options.seconds
        self.commit = git(ROOT, "rev-parse", "--short=12", "--verify", f"{options.commit}^{{commit}}")
        self.book = read_book(git(ROOT, "show", f"{self.commit}:{(HERE / 'rows.json').relative_to(ROOT).as_posix()}"))
        self.volumes: dict[str, Path] = {}
        for path in sorted(path for folder in options.volumes for path in folder.rglob("*.nii.gz")):
            if self.volumes.setdefault(path.name, path.resolve()) != path.resolve():
                raise SystemExit(f"--volumes: {path} and {self.volumes[path.name]} have the same name; leave out one")
        self.failed: dict[str, str] = {}
        self.lacking: dict[str, str] = {}
        self.too_long: dict[str, str] = {}

    def run(self) -> int:
        """Run units until none is left that fits. Returns the exit code."""
        while taken := self.take_unit():
            unit, lock = taken
            began = time.monotonic()
            print(f"{time.strftime('%H:%M')} {unit.name}: {unit.minutes:.0f} minutes are expected", flush=True)
            try:
                failure = self.run_unit(unit)
            finally:
                lock.release()
            if time.monotonic() > self.deadline - LAST_WORDS and failure:
                print("the time is over; the same command goes on")
                break
            if failure:
                self.failed[unit.name] = failure
                (unit.find_state(self.folder) / "unit.json").unlink(missing_ok=True)  # so that it begins again
            minutes = (time.monotonic() - began) / 60
            print(f"{time.strftime('%H:%M')} {unit.name}: {failure or 'done'} after {minutes:.1f} minutes", flush=True)
        for name, reason in {**self.too_long, **self.lacking, **self.failed}.items():
            print(f"not done: {name}: {reason}")
        return 1 if self.failed or self.lacking else 0

    def take_unit(self) -> tuple[Unit, FileLock] | None:
        """The next unit that fits into the time left, locked against other queues; first one that was stopped."""
        results = read_lines(RESULTS)
        units = [unit for unit in list_units(self.book["rows"], results) if not unit.is_done(results)]
        units = [unit for unit in units if unit.name not in self.failed]
        begun = [unit for unit in units if (unit.find_state(self.folder) / "unit.json").is_file()]
        self.lacking, self.too_long = {}, {}
        for unit in [*begun, *units]:
            left = self.deadline - time.monotonic() - LAST_WORDS
            if missing := self.list_missing(unit):
                self.lacking[unit.name] = f"{', '.join(missing)} in --volumes"
            elif left <= (0 if unit in begun else 60 * unit.minutes):
                self.too_long[unit.name] = f"takes {unit.minutes:.0f} minutes"
            else:
                state = unit.find_state(self.folder)
                state.mkdir(parents=True, exist_ok=True)
                lock = FileLock(state.with_name(f"{state.name}.lock"))
                try:  # a queue that was just stopped gives its row free
                    lock.acquire(timeout=LAST_WORDS if unit in begun else 0)
                except Timeout:
                    continue
                if not unit.is_done(read_lines(RESULTS)):
                    return unit, lock
                lock.release()
        return None

    def list_missing(self, unit: Unit) -> list[str]:
        """What is missing of the volumes of a unit's datalists."""
        missing = []
        for name in dict.fromkeys(name for _, name, _ in unit.evaluations):
            for kind, count in self.book["datalists"][name]["volumes"].items():
                if (found := len(self.find_volumes(name, kind))) != count:
                    missing.append(f"{found} instead of {count} volumes {self.book['datalists'][name][kind]}")
        return missing

    def find_volumes(self, datalist: str, kind: str) -> dict[str, Path]:
        """The volumes of a kind, such as ``hr``, of a datalist, by name."""
        patterns = self.book["datalists"][datalist][kind].split(",")
        return {name: path for name, path in self.volumes.items() if any(Path(name).match(each) for each in patterns)}

    def run_unit(self, unit: Unit) -> str | None:
        """Train and evaluate a unit, and append its lines. Returns what went wrong, or None."""
        state = unit.find_state(self.folder)
        start = find_start(self.book["rows"], unit)
        if start and not self.is_finished(start):
            begun = start.find_state(self.folder)
            begun.mkdir(parents=True, exist_ok=True)
            with FileLock(begun.with_name(f"{begun.name}.lock")):
                if not self.is_finished(start) and (failure := self.run_unit(start)):
                    return failure
        datalists = dict.fromkeys(name for _, name, _ in unit.evaluations)
        commit = self.begin(state, self.define(unit))
        with FileLock(self.folder / "lock"):  # of the clones and datalists
            tree = self.make_clone(commit)
            for name in datalists:
                if failure := self.make_datalist(name, tree):
                    return failure
        (state / "table.json").write_text(json.dumps({"queue": make_table(unit, tree)}, indent=2) + "\n")
        keys = {**unit.row["keys"], "seed": unit.seed, **(unit.row["trial_keys"] if unit.trial else {})}
        lines = []
        for number, (table, data, others) in enumerate(unit.evaluations):
            folder = state / str(number)
            folder.mkdir(exist_ok=True)
            if start and not (folder / "start").exists():
                (folder / "start").symlink_to(start.find_state(self.folder) / "0" / "start")
            words = ["ablate", f"--table={state / 'table.json'}", f"--output_dir={folder}", "--resume=True"]
            words += [f"--dataset_dir={self.find_datalist(data)[0]}"]
            words += [f"--{key}={format_value(value)}" for key, value in (keys | others).items() if value is not None]
            if number and unit.row["trains"]:
                words.append(f"--trained={state / '0'}")
            failure = self.run_program(tree, words, state / "log.txt")
            if failure and unit.trial and ": not finite: " in failure:  # its value is not taken
                lines = [{**unit.make_label(table, unit.label), "set": "tried", "psnr": "-inf", "commit": commit}]
                break
            if failure:
                return failure
            lines += read_table(unit, folder, table, unit.row["sets"], commit)
        with FileLock(self.folder / "lock"):
            if not unit.is_done(read_lines(RESULTS)):  # a start may be trained again, for others
                append_lines(RESULTS, COLUMNS, lines)
        (state / "lines.json").write_text(json.dumps(lines))
        for volume in state.rglob("*_sr.nii.gz"):
            volume.unlink()
        return None

    def define(self, unit: Unit) -> dict[str, Any]:
        """All that a unit's figures depend on, besides the commit."""
        datalists = {name: self.book["datalists"][name] for _, name, _ in unit.evaluations}
        definition = {"unit": unit, "datalists": datalists, "start": find_start(self.book["rows"], unit)}
        return json.loads(json.dumps(definition))

    def is_finished(self, unit: Unit) -> bool:
        """Whether a unit's weights are in its state, by its present definition."""
        state = unit.find_state(self.folder)
        if not (state / "lines.json").is_file():
            return False
        return json.loads((state / "unit.json").read_text())["definition"] == self.define(unit)

    def begin(self, state: Path, definition: Mapping[str, Any]) -> str:
        """Begin a unit, or go on with its state. Returns the commit that runs it."""
        path = state / "unit.json"
        if path.is_file():
            known = json.loads(path.read_text())
            if known["definition"] == definition:
                return known["commit"]
            print(f"{state.name}: it has changed since {known['commit']}, and begins again", flush=True)
        shutil.rmtree(state)
        state.mkdir(exist_ok=True)  # another queue may have made it since
        path.write_text(json.dumps({"commit": self.commit, "definition": definition}, indent=2) + "\n")
        return self.commit

    def make_clone(self, commit: str) -> Path:
        """A clone of the repository at a commit."""
        tree = self.folder / "clones" / commit
        if not tree.is_dir():
            part = tree.with_name(f"{commit}.part")
            shutil.rmtree(part, ignore_errors=True)
            git(ROOT, "clone", "--quiet", "--no-checkout", str(ROOT), str(part))
            git(part, "checkout", "--quiet", "--detach", commit)
            part.rename(tree)
        return tree

    def find_datalist(self, name: str) -> tuple[Path, dict[str, Any], dict[str, Path]]:
        """The folder of a datalist, its keys, and its volumes. Another definition has another folder."""
        keys = {"subject": SUBJECT, **self.book["datalists"][name]}
        files = {file: path for kind in keys.pop("volumes") for file, path in self.find_volumes(name, kind).items()}
        definition = json.dumps([keys, {file: str(path) for file, path in files.items()}])
        digest = hashlib.sha256(definition.encode()).hexdigest()[:8]
        return self.folder / "data" / re.sub(r"\W+", "_", f"{name} {digest}"), keys, files

    def make_datalist(self, name: str, tree: Path) -> str | None:
        """Make the folder of a datalist, with links to its volumes. Returns what went wrong, or None."""
        folder, keys, files = self.find_datalist(name)
        if folder.is_dir():
            return None
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file, path in files.items():
            (part / file).symlink_to(path)
        words = [f"--{key}={format_value(value)}" for key, value in keys.items()]
        failure = self.run_program(tree, ["datalist", f"--dataset_dir={part}", *words], part / "log.txt")
        if not failure:
            part.rename(folder)
        return failure

    def run_program(self, tree: Path, words: Sequence[str], log: Path) -> str | None:
        """Run ``python -m common`` in a clone. Returns how it failed, or None."""
        seconds = max(0.0, self.deadline - time.monotonic() - LAST_WORDS)
        with log.open("a") as file:
            status = run_program([sys.executable, "-m", "common", *words], tree, file, seconds, LAST_WORDS / 2)
        if status is None:
            return "the time is over"
        said = " ".join(log.read_text().rpartition("error: ")[2].split())
        return f"exit status {status}: {said[-600:]} ({log})" if status else None


def read_table(unit: Unit, folder: Path, table: str, sets: Mapping[str, str], commit: str) -> list[dict[str, Any]]:
    """The lines of ``results.csv`` from a table of ``ablate``: of the row, and of cubic if its row asks for it."""
    wanted = [unit.label, *(["cubic"] if unit.row.get("cubic") else [])]
    lines = []
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["method"] in wanted:
                names = [name for name, patterns in sets.items() if any(fnmatch(line["person"], p) for p in patterns)]
                label = {**unit.make_label(table, line["method"]), "set": "tried" if unit.trial else names[0]}
                facts = {key: line.get(key) or "" for key in OF_TRAINING}
                facts["machine"] = facts["machine"] or name_machine(torch.device("cpu"))  # of what trains nothing
                scores = {key: read_score(line, key) for key in SCORES}
                lines.append({**label, "person": line["person"], **scores, **facts, "commit": commit})
    return lines


def read_score(line: Mapping[str, str], key: str) -> str:
    """A score of a line of ``table.csv``; the shift is the largest along an axis, in voxels."""
    value = float(line[key]) if key != "shift" else max(abs(float(line[f"displacement_{axis}"])) for axis in "xyz")
    return f"{value:.4f}"


def read_lines(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV; none if it does not exist."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_lines(path: Path, columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> None:
    """Append lines to a CSV."""
    begins = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if begins:
            writer.writeheader()
        writer.writerows(lines)


def format_value(value: Any) -> str:
    """A value as ``ablate`` and ``datalist`` read it."""
    return value if isinstance(value, str) else json.dumps(value)


def git(folder: Path, *words: str) -> str:
    """The output of a git command in a folder."""
    done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def count_minutes(row: Mapping[str, Any], results: Sequence[Mapping[str, str]]) -> float:
    """An estimate of what is left to compute for a row, with its trials."""
    label = Unit(row, 0).label
    tried = [line["choice"] for line in find_lines(results, row["paper"], (row["table"], label), True)]
    names = row.get("best", [label])
    done = {line["seed"] for name in names for line in find_lines(results, row["paper"], (row["table"], name))}
    seeds = [seed for seed in row.get("seeds", [0]) if str(seed) not in done]
    ((key, values),) = row.get("choose", {"": []}).items()
    trials = [value for value in values if f"{key}={value}" not in tried]
    return row["minutes"] * (len(seeds) + row["trial_share"] * len(trials))


def look(book: Mapping[str, Any]) -> None:
    """Print the rows, their mean gain over cubic in PSNR, and the hours that are left."""
    results, total = read_lines(RESULTS), 0.0
    for row in book["rows"]:
        label = Unit(row, 0).label
        lines = find_lines(results, row["paper"], (row["table"], label))
        gain = measure_gain(results, row, (row["table"], label))
        done, seeds = len({line["seed"] for line in lines}), len(row.get("seeds", [0]))
        left = count_minutes(row, results)
        said = f"{done} of {seeds} seeds" + ("" if gain is None else f", {gain:+.2f} dB")
        print(f"{row['paper']}, {row['table']}: {label}: {said}" + (f", {left:.0f} minutes are left" if left else ""))
        total += left
    print(f"{total / 60:.1f} hours of one core are left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", nargs="+", type=Path, metavar="FOLDER", help="of the people's volumes, *.nii.gz")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "mri-sr-queue", help="of the states")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="a row that does not fit is not begun")
    parser.add_argument("--commit", default="HEAD", help="that new rows run at")
    parser.add_argument("--look", action="store_true", help="print what is done and what is left")
    options = parser.parse_args()
    if options.look:
        return look(read_book((HERE / "rows.json").read_text()))
    for folder in options.volumes or parser.error("--volumes is missing: name the folders of the people's volumes"):
        if not folder.is_dir():
            parser.error(f"--volumes {folder}: there is no such folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on"))
    sys.exit(Queue(options).run())


if __name__ == "__main__":
    main()
