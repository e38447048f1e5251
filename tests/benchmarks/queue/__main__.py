"""Train and evaluate the rows of the papers' tables, one after another, beside other work.

    python -m tests.benchmarks.queue --volumes FOLDER [FOLDER ...]    # starts, or goes on
    python -m tests.benchmarks.queue --look

``rows.json`` lists the rows in order of worth, and is read at the commit. Each row names rows of a bundle's
``tables.json``, or has their keys itself. They are trained together, and evaluated with and without data consistency. A
row with ``choose`` first has a trial for each value of a key. The value with the highest PSNR on the person of
``tried_on`` is taken; a value whose training diverges is not. ``like`` takes the value of an earlier row. ``best`` is
the rival whose training with the first seed had the n-th best validation.

A row runs with one thread at the lowest priority, in a clone of the commit, so changes of the work tree do not reach
it. If the queue is stopped, also by kill -9, the row goes on from its state in --folder, at the commit that began it.
If its definition has changed since, it begins again. Several queues may run at once in one work tree: each takes the
next free row. ``results.csv`` gets a line for each row, seed, set and person, ``curves.csv`` the PSNR of validations.

A row without its volumes is left out. A failed row does not stop the others, and begins again at the next start. Both
are listed at the end, and then the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from filelock import FileLock, Timeout

from common.runtime.machine import name_machine

from .child import run_program
from .units import CONSISTENT, ROW, Unit, find_lines, list_units, make_table, read_book

ROOT, HERE = Path(__file__).parents[3], Path(__file__).parent
RESULTS, CURVES = HERE / "results.csv", HERE / "curves.csv"
SCORES = ("psnr", "ssim", "psnr_registered", "shift")
OF_TRAINING = ("iterations", "seconds", "machine", "precision")
COLUMNS = (*ROW, "set", "person", *SCORES, *(f"{score}_dc" for score in SCORES), *OF_TRAINING, "commit")
SUBJECT = r"person_\d+|[^/.]+"  # in a file's name
CURVE_COLUMNS = (*ROW, "trial", "iteration", "psnr")
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
                (unit.find_state(self.folder) / "unit.json").unlink()  # so that it begins again
            minutes = (time.monotonic() - began) / 60
            print(f"{time.strftime('%H:%M')} {unit.name}: {failure or 'done'} after {minutes:.1f} minutes", flush=True)
        for name, reason in {**self.too_long, **self.lacking, **self.failed}.items():
            print(f"not done: {name}: {reason}")
        return 1 if self.failed or self.lacking else 0

    def take_unit(self) -> tuple[Unit, FileLock] | None:
        """The next unit that fits into the time left, locked against other queues; first one that was stopped."""
        results = read_lines(RESULTS)
        units = [
            unit for unit in list_units(self.book["rows"], results, read_lines(CURVES)) if not unit.is_done(results)
        ]
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
        for name in {*unit.sets.values(), unit.row["train"]} - {None}:
            for kind, count in self.book["datalists"][name]["volumes"].items():
                if (found := len(self.find_volumes(name, kind))) != count:
                    pattern = self.book["datalists"][name][kind]
                    missing.append(f"{found} instead of {count} volumes {pattern}")
        return sorted(set(missing))

    def find_volumes(self, datalist: str, kind: str) -> dict[str, Path]:
        """The volumes of a kind, such as ``hr``, of a datalist, by name."""
        patterns = self.book["datalists"][datalist][kind].split(",")
        return {name: path for name, path in self.volumes.items() if any(Path(name).match(each) for each in patterns)}

    def run_unit(self, unit: Unit) -> str | None:
        """Train and evaluate a unit, and append its lines. Returns what went wrong, or None."""
        state, trained = unit.find_state(self.folder), unit.row["train"]
        datalists = dict.fromkeys([trained, *unit.sets.values()] if trained else unit.sets.values())
        definition = {"unit": unit, "datalists": {name: self.book["datalists"][name] for name in datalists}}
        commit = self.begin(state, json.loads(json.dumps(definition)))
        with FileLock(self.folder / "lock"):  # of the clones and datalists
            tree = self.make_clone(commit)
            for name in datalists:
                if failure := self.make_datalist(name, tree):
                    return failure
        (state / "table.json").write_text(json.dumps({"queue": make_table(unit, tree)}, indent=2) + "\n")
        keys = {**unit.row["keys"], "seed": unit.seed, **(unit.row["trial_keys"] if unit.trial else {})}
        words = [f"--{key}={format_value(value)}" for key, value in keys.items() if value is not None]
        for name in datalists:
            line = ["ablate", f"--table={state / 'table.json'}", f"--output_dir={state / name}", "--resume=True"]
            line += [f"--dataset_dir={self.folder / 'data' / name}", *words]
            if trained not in (None, name):
                line.append(f"--trained={state / trained}")
            failure = self.run_program(tree, line, state / "log.txt")
            if failure and unit.trial and ": not finite: " in failure:  # its value is not taken
                bad = {
                    **unit.make_label(unit.label),
                    "set": "tried",
                    "psnr": "-inf",
                    "psnr_dc": "-inf",
                    "commit": commit,
                }
                with FileLock(self.folder / "lock"):
                    append_lines(RESULTS, COLUMNS, [bad])
                return None
            if failure:
                return failure
        lines = [each for name, of in unit.sets.items() for each in read_table(unit, state / of, name, commit)]
        curve = read_curve(unit, state / trained) if trained else []
        with FileLock(self.folder / "lock"):
            append_lines(CURVES, CURVE_COLUMNS, curve)
            append_lines(RESULTS, COLUMNS, lines)
        for volume in state.rglob("*_sr.nii.gz"):
            volume.unlink()
        return None

    def begin(self, state: Path, definition: Mapping[str, Any]) -> str:
        """Begin a unit, or go on with its state. Returns the commit that runs it."""
        path = state / "unit.json"
        if path.is_file():
            known = json.loads(path.read_text())
            if known["definition"] == definition:
                return known["commit"]
            print(f"{state.name}: it has changed since {known['commit']}, and begins again", flush=True)
        shutil.rmtree(state)
        state.mkdir()
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

    def make_datalist(self, name: str, tree: Path) -> str | None:
        """Make the folder of a datalist, with links to its volumes. Returns what went wrong, or None."""
        folder = self.folder / "data" / name
        keys = {"subject": SUBJECT, **self.book["datalists"][name]}
        files = {file: path for kind in keys.pop("volumes") for file, path in self.find_volumes(name, kind).items()}
        definition = json.dumps([keys, {file: str(path) for file, path in files.items()}])
        if (folder / "definition.json").is_file() and (folder / "definition.json").read_text() == definition:
            return None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, path in files.items():
            (folder / file).symlink_to(path)
        words = [f"--{key}={format_value(value)}" for key, value in keys.items()]
        failure = self.run_program(tree, ["datalist", f"--dataset_dir={folder}", *words], folder / "log.txt")
        if not failure:
            (folder / "definition.json").write_text(definition)
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


def read_table(unit: Unit, folder: Path, name: str, commit: str) -> list[dict[str, Any]]:
    """The lines of ``results.csv`` from a table of ``ablate``."""
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        cases = {(line["method"], line["person"], line["case"]): line for line in csv.DictReader(file)}
    wanted = [row["name"] for row in json.loads((folder.parent / "table.json").read_text())["queue"]]
    lines = []
    for (method, person, case), line in cases.items():
        if not method.endswith(CONSISTENT) and (method in wanted or method + CONSISTENT in wanted):
            consistent = cases[method + CONSISTENT, person, case]
            label = unit.make_label(method)
            scores = {key: read_score(line, key) for key in SCORES}
            scores |= {f"{key}_dc": read_score(consistent, key) for key in SCORES}
            facts = {key: line.get(key) or "" for key in OF_TRAINING}
            facts["machine"] = facts["machine"] or name_machine(torch.device("cpu"))  # of what trains nothing
            lines.append({**label, "set": name, "person": person, **scores, **facts, "commit": commit})
    return lines


def read_score(line: Mapping[str, str], key: str) -> str:
    """A score of a line of ``table.csv``; the shift is the largest along an axis, in voxels."""
    value = float(line[key]) if key != "shift" else max(abs(float(line[f"displacement_{axis}"])) for axis in "xyz")
    return f"{value:.4f}"


def read_curve(unit: Unit, folder: Path) -> list[dict[str, Any]]:
    """The lines of ``curves.csv`` of a unit's training."""
    label = unit.make_label(unit.label)
    entries = [json.loads(line) for path in sorted(folder.rglob("history*.jsonl")) for line in path.open()]
    scores = [(entry["iteration"], entry["validation/psnr"]) for entry in entries if "validation/psnr" in entry]
    return [{**label, "trial": unit.trial, "iteration": i, "psnr": f"{psnr:.4f}"} for i, psnr in scores]


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


def look(book: Mapping[str, Any], folder: Path) -> None:
    """Print the units that are known, and their mean PSNR by set."""
    results, left = read_lines(RESULTS), 0.0
    for unit in list_units(book["rows"], results, read_lines(CURVES)):
        sets = {}
        for name in unit.sets:
            lines = find_lines(results, unit.row, unit.label, unit.trial, seed=str(unit.seed), set=name)
            lines = [line for line in lines if line["choice"] == unit.choice]
            if lines:
                psnr, consistent = (mean(float(line[key]) for line in lines) for key in ("psnr", "psnr_dc"))
                sets[name] = f"{name} ({len(lines)}) {psnr:.2f} dB, with data consistency {consistent:.2f}"
        left += 0 if sets else unit.minutes
        begun = "begun" if (unit.find_state(folder) / "unit.json").is_file() else "left"
        print(f"{unit.name}: {'; '.join(sets.values()) or f'{begun}, {unit.minutes:.0f} minutes'}")
    print(f"{left / 60:.1f} hours are left, and rows that are not known yet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", nargs="+", type=Path, metavar="FOLDER", help="of the people's volumes, *.nii.gz")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "mri-sr-queue", help="of the states")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="a row that does not fit is not begun")
    parser.add_argument("--commit", default="HEAD", help="that new rows run at")
    parser.add_argument("--look", action="store_true", help="print what is done and what is left")
    options = parser.parse_args()
    if options.look:
        return look(read_book((HERE / "rows.json").read_text()), options.folder)
    for folder in options.volumes or parser.error("--volumes is missing: name the folders of the people's volumes"):
        if not folder.is_dir():
            parser.error(f"--volumes {folder}: there is no such folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on"))
    sys.exit(Queue(options).run())


if __name__ == "__main__":
    main()
