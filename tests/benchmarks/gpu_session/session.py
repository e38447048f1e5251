"""Steps of a session in processes of their own, each with a time limit; only the standard library is imported."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TAIL = 8000  # characters of a step's output that the log keeps
GRACE = 8.0  # seconds in which a step that is told to end may save what it has


class Session:
    """Runs steps until the time is up.

    Args:
        output: folder of log.txt.
        minutes: of the whole session.
        **environment: variables of each step.

    Attributes:
        failed: names of the steps that failed, or did not end in time.
    """

    def __init__(self, output: Path, minutes: float, **environment: str) -> None:
        self.begun, self.seconds = time.monotonic(), 60 * minutes
        self.failed: list[str] = []
        self._environment, self._lock = {**os.environ, **environment}, threading.Lock()
        output.mkdir(parents=True, exist_ok=True)
        self._log = output / "log.txt"
        self._log.write_text("")

    def left(self, until: float = 1.0) -> float:
        """Seconds until this share of the session has passed."""
        return self.begun + until * self.seconds - time.monotonic()

    def say(self, text: str, more: str = "") -> None:
        """Print a line with the seconds that have passed; the log has more."""
        line = f"[{time.monotonic() - self.begun:4.0f} s] {text}"
        with self._lock, self._log.open("a") as log:
            print(line, flush=True)
            log.write(f"{line}\n{more}")

    def step(self, name: str, *words: object, until: float = 1.0, **environment: str) -> None:
        """Run ``python -m words`` until it ends or this share of the session has passed; a failure is kept.

        Args:
            name: of the step, in the log.
            words: the module, and its arguments.
            until: share of the session.
            **environment: variables beside the session's.
        """
        begun, late = time.monotonic(), ""
        if self.left(until) <= GRACE:
            self.failed.append(name)
            self.say(f"{name}: FAILED: no time is left")
            return
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [sys.executable, "-m", *map(str, words)],
                env={**self._environment, **environment},
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # so that all that it starts can be ended
            )
            try:
                process.wait(self.left(until) - GRACE)
            except subprocess.TimeoutExpired:
                late = "its time was up; "
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                pass
            _end_all(process)
            said.seek(0)
            text = _without_bars(said.read().decode(errors="replace"))
        passed = process.returncode == 0 and not late
        if not passed:
            self.failed.append(name)
        last = text.rsplit("\n", 1)[-1]
        verdict = "passed" if passed else f"FAILED ({late}exit code {process.returncode}): {last[:300]}"
        self.say(f"{name}: {verdict} [{time.monotonic() - begun:.1f} s]", f"{text[-TAIL:]}\n\n")


def _without_bars(text: str) -> str:
    """What a terminal would show in the end: of what was printed over, the last."""
    lines = (line.rstrip().rsplit("\r", 1)[-1].rstrip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _end_all(process: subprocess.Popen) -> None:
    """End a step and what it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
