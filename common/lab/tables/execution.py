"""Execute the runs of a table, one after another."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from ...runtime.interruption import handle_signals
from ...runtime.progress import format_duration
from .runs import Run, make_command_words

TRAINING_SECONDS = "training_seconds.txt"
"""Seconds of a run's training, with the start of the program: one line for each start that trained something."""
BEGUN = "training_begun.txt"
"""While a run trains: its start, in seconds since 1970, and the size of its log at that time, in bytes."""

_PRCTL: Any = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def execute_runs(runs: Sequence[Run], resume: bool) -> list[tuple[Run, str]]:
    """Execute all runs, and print each. A failed run does not stop the others.

    Args:
        runs: in their order; one that only evaluates comes after the run that trains its weights.
        resume: whether to skip runs with a table.json and to continue trainings.

    Returns:
        The runs that failed, and why.
    """
    failures: list[tuple[Run, str]] = []
    for number, run in enumerate(runs, start=1):
        name = f"run {number} of {len(runs)}: {run.title}"
        if resume and (run.folder / "table.json").is_file():
            print(f"{name}: done before", flush=True)
            continue
        print(f"{name}, in {run.folder}", flush=True)
        start = time.monotonic()
        failure = _execute_run(run, resume)
        took = format_duration(time.monotonic() - start)
        if failure:
            failures.append((run, failure))
        print(f"{name}: {f'failed after {took}: {failure}' if failure else f'done in {took}'}", flush=True)
    return failures


def is_trained(folder: Path) -> bool:
    """Whether a folder's run was trained before its evaluation, which is so if it left weights or a state."""
    return any(folder.glob("models/*.pt"))


def _execute_run(run: Run, resume: bool) -> str | None:
    """Train and evaluate. Returns what went wrong, or None."""
    if run.awaited_folder and not (run.awaited_folder / "table.json").is_file():
        return f"{run.awaited_folder}, whose weights it takes, has no table.json: that run is not done."
    run.folder.mkdir(parents=True, exist_ok=True)
    path, table = run.folder / "log.txt", run.folder / "table.json"
    if resume:
        _add_training_time(run.folder, path)
    with path.open("a" if resume else "w") as log:
        before_now = log.tell()
        for evaluate in (False, True) if run.is_training else (True,):
            words = [*make_command_words(run, resume, evaluate), "--traceback=True"]
            if not evaluate:
                (run.folder / BEGUN).write_text(f"{time.time():.1f} {_measure_history(run.folder)}\n")
            status = run_program([sys.executable, "-m", "monai.bundle", "run", *words], log)
            if not evaluate:
                _add_training_time(run.folder)
            if status != 0:
                said_now = path.read_bytes()[before_now:].decode(errors="replace")
                lines = [line for line in said_now.splitlines() if line.strip()]
                # An evaluation with failed cases writes its table before it exits with an error.
                table.unlink(missing_ok=True)
                # Bundles print this line at their end; a killed process prints none.
                last = max((i for i, line in enumerate(lines) if line.startswith("error: ")), default=len(lines) - 1)
                message = lines[last].removeprefix("error: ") if lines else "no output"
                if message.endswith(":") and len(lines) > last + 1:
                    message += f" {lines[last + 1].strip()}"  # the first of a list
                return f"{'evaluation' if evaluate else 'training'}, exit status {status}: {message}"
    return None if table.is_file() else "evaluation: it has written no table.json."


def run_program(command: Sequence[str], log: TextIO) -> int:
    """Run a program and wait for its end.

    SIGTERM and the closing of the terminal interrupt this like Ctrl-C. The program then gets one SIGTERM, so that it
    can save its state. Its end is awaited; a second interruption kills it. It runs in a session of its own. Otherwise a
    terminal would send Ctrl-C to it too, and a trainer ends at once after a second signal. If the calling thread ends,
    even by SIGKILL, Linux kills the program. Other systems let it go on.

    Args:
        command: the program and its arguments.
        log: file for its output and errors.

    Returns:
        Its exit status; if a signal ended it, the negative number of the signal.

    Raises:
        KeyboardInterrupt: when it was interrupted, after the program has ended.
    """
    parent = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def die_with_parent() -> None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # which died before that
            os._exit(1)

    # Windows has no SIGHUP.
    with handle_signals({signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}, interrupt):
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent if _PRCTL else None,
        )
        try:
            return program.wait()
        except KeyboardInterrupt:
            try:
                try:
                    print("\nstopping the run; interrupt again to kill it", flush=True)
                finally:  # also if nobody reads this any more
                    program.terminate()
                    program.wait()
            except KeyboardInterrupt:
                program.kill()
                program.wait()
            raise


def _add_training_time(folder: Path, log: Path | None = None) -> None:
    """Add the time of a training to its seconds, up to now, or up to its last output if it was killed."""
    begun = folder / BEGUN
    if not begun.is_file():
        return
    began, before = map(float, begun.read_text().split())
    end = time.time() if log is None else log.stat().st_mtime
    # A finished training that was only started again has taken no more time.
    if is_trained(folder) and _measure_history(folder) != before:
        with (folder / TRAINING_SECONDS).open("a") as seconds:
            seconds.write(f"{end - began:.1f}\n")
    begun.unlink()


def _measure_history(folder: Path) -> int:
    """The bytes of a run's log of training iterations."""
    return sum(path.stat().st_size for path in folder.glob("history*.jsonl"))
