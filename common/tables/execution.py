"""Execute the runs of a table, one after another or in parallel, and estimate the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from ..runtime.parallel_runs import ProgramRunner
from ..runtime.progress import format_duration
from .runs import Run, make_command_words

TRAINING_SECONDS = "training_seconds.txt"
"""Seconds of a run's training, with the start of the program: one line for each start that trained something."""
BEGUN = "training_begun.txt"
"""While a run trains: its start, in seconds since 1970, and the size of its log at that time, in bytes."""


def execute_runs(runs: Sequence[Run], jobs: int, resume: bool) -> list[tuple[Run, str]]:
    """Execute all runs, and print each run and the time left. A failed run does not stop the others.

    Args:
        runs: in their order; one that only evaluates waits for the run that trains its weights.
        jobs: number of runs in parallel, each with its share of the CPU's threads.
        resume: whether to skip runs with a table.json and to continue trainings.

    Returns:
        The runs that failed, and why.
    """
    named = {run.folder: f"run {number} of {len(runs)}: {run.title}" for number, run in enumerate(runs, start=1)}
    titles: dict[Any, str] = {run.folder: run.title for run in runs}
    waiting, pace = [], TimeEstimate(jobs)
    failed: dict[Path, str] = {}
    for run in runs:
        if resume and (run.folder / "table.json").is_file():
            print(f"{named[run.folder]}: done before", flush=True)
        else:
            waiting.append(run)
    running: dict[Future[str | None], Run] = {}
    with ThreadPoolExecutor(jobs) as pool, ProgramRunner(jobs) as programs:
        while waiting or running:
            for run in list(waiting):
                if run.awaited_folder in failed:
                    waiting.remove(run)
                    failed[run.folder] = f"{titles[run.awaited_folder]}, whose weights it takes, failed."
                    print(f"{named[run.folder]}: failed: {failed[run.folder]}", flush=True)
            awaited = {run.folder for run in (*waiting, *running.values())}
            ready = [run for run in waiting if run.awaited_folder not in awaited]
            for run in ready[: jobs - len(running)]:
                waiting.remove(run)
                print(f"{named[run.folder]}, in {run.folder}", flush=True)
                pace.start_run(run)
                running[pool.submit(_execute_run, run, resume, programs)] = run
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                failure = future.result()
                took = format_duration(pace.end_run(run, well=failure is None))
                if failure:
                    failed[run.folder] = failure
                left = pace.estimate_time_left(waiting, running.values())
                message = f"failed after {took}: {failure}" if failure else f"done in {took}"
                print(f"{named[run.folder]}: {message}" + (f" (about {left} left)" if left else ""), flush=True)
    return [(run, failed[run.folder]) for run in runs if run.folder in failed]


class TimeEstimate:
    """Estimates the time left from the runs that are done, of which ``jobs`` run in parallel.

    A run takes as long as the others of its row on average. Without those, it takes as long as trainings, or as
    evaluations if it only evaluates. A run that trains nothing, such as interpolation, does not count for other rows.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.start_time: dict[Path, float] = {}
        self.done: list[tuple[str, str, float]] = []  # row, kind and seconds of each run

    def start_run(self, run: Run) -> None:
        self.start_time[run.folder] = time.monotonic()

    def end_run(self, run: Run, well: bool) -> float:
        """Return the seconds of a run. A failed run does not change the estimate."""
        seconds = time.monotonic() - self.start_time[run.folder]
        if well:
            kind = "evaluation" if not run.is_training else "training" if is_trained(run.folder) else ""
            self.done.append((run.row, kind, seconds))
        return seconds

    def estimate_time_left(self, waiting: Collection[Run], running: Collection[Run]) -> str | None:
        """Return a length of time; None if it is not known or nothing is left."""
        left, now, seconds = [*waiting, *running], time.monotonic(), 0.0
        for run in left:
            kinds = ("training",) if run.is_training else ("evaluation", "training")
            groups = [[s for row, _, s in self.done if row == run.row]]
            groups += [[s for _, kind, s in self.done if kind == wanted] for wanted in kinds]
            known = next(filter(None, groups), None)
            if not known:
                return None
            seconds += max(0.0, sum(known) / len(known) - (now - self.start_time.get(run.folder, now)))
        return format_duration(seconds / min(self.jobs, len(left))) if left else None


def is_trained(folder: Path) -> bool:
    """Whether a folder's run was trained before its evaluation, which is so if it left weights or a state."""
    return any(folder.glob("models/*.pt"))


def _measure_log(folder: Path) -> int:
    """The bytes of a run's log of training iterations."""
    return sum(path.stat().st_size for path in folder.glob("history*.jsonl"))


def _execute_run(run: Run, resume: bool, programs: ProgramRunner) -> str | None:
    """Train and evaluate. Returns what went wrong, or None."""
    run.folder.mkdir(parents=True, exist_ok=True)
    path, begun = run.folder / "log.txt", run.folder / BEGUN
    if run.awaited_folder and not (run.awaited_folder / "table.json").is_file():
        return f"{run.awaited_folder}, whose weights it takes, has no table.json: that run is not done."
    with path.open("a") as log:
        if not _lock_log(log):
            return (
                f"{path}: a run still writes to it, started by another command or by one that was "
                "killed; wait for its end, or end it, and go on with --resume True."
            )
        if resume:
            _add_training_time(run.folder, path)
        else:
            log.seek(0)
            log.truncate()
        before_now = log.tell()
        for evaluate in (False, True) if run.is_training else (True,):
            line = [*make_command_words(run, resume, evaluate), "--traceback=True"]
            if not evaluate:
                begun.write_text(f"{time.time():.1f} {_measure_log(run.folder)}\n")
            status = programs.run([sys.executable, "-m", "monai.bundle", "run", *line], log)
            if not evaluate:
                _add_training_time(run.folder)
            if status != 0:
                said_now = path.read_bytes()[before_now:].decode(errors="replace")
                lines = [line for line in said_now.splitlines() if line.strip()]
                # An evaluation with failed cases writes its table before it exits with an error.
                (run.folder / "table.json").unlink(missing_ok=True)
                # Bundles print this line at their end; a killed process prints none.
                last = max((i for i, line in enumerate(lines) if line.startswith("error: ")), default=len(lines) - 1)
                message = lines[last].removeprefix("error: ") if lines else "no output"
                if message.endswith(":") and len(lines) > last + 1:
                    message += f" {lines[last + 1].strip()}"  # the first of a list
                return f"{'evaluation' if evaluate else 'training'}, exit status {status}: {message}"
    if not (run.folder / "table.json").is_file():
        return "evaluation: it has written no table.json."
    return None


def _lock_log(log: TextIO) -> bool:
    """Lock the log, and return whether no other process writes to it, as far as its file system knows.

    A started run inherits the file as its output, and so keeps the lock while it lives.
    """
    if fcntl is not None:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no locks there
    return True


def _add_training_time(folder: Path, log: Path | None = None) -> None:
    """Add the time of a training to its seconds, up to now, or up to its last output if it was killed."""
    begun = folder / BEGUN
    if not begun.is_file():
        return
    began, before = map(float, begun.read_text().split())
    end = time.time() if log is None else log.stat().st_mtime
    # A finished training that was only started again has taken no more time.
    if is_trained(folder) and _measure_log(folder) != before:
        with (folder / TRAINING_SECONDS).open("a") as seconds:
            seconds.write(f"{end - began:.1f}\n")
    begun.unlink()
