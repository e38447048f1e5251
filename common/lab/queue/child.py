"""Programs that run beside other work, and end with this one."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def run_program(command: Sequence[str], folder: Path, log: TextIO, seconds: float, last_words: float) -> int | None:
    """Run a program with one thread at the lowest priority.

    Args:
        command: program and arguments.
        folder: where it runs.
        log: file for its output.
        seconds: after which it is asked to end.
        last_words: seconds that it then gets, before it is killed.

    Returns:
        Its exit status; None if it was asked to end.
    """
    parent = os.getpid()

    def obey() -> None:
        os.nice(19)
        with contextlib.suppress(OSError):  # Linux shares the cores among sessions first, and this program gets its own
            Path("/proc/self/autogroup").write_text("19")
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: if this program is killed, the other one is too
        if os.getppid() != parent:  # which died before that
            os._exit(1)

    program = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **QUIET},
        start_new_session=True,  # Ctrl-C would reach it twice
        preexec_fn=obey,
    )
    try:
        return program.wait(None if seconds == float("inf") else seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if program.poll() is None:
            program.terminate()
            try:
                program.wait(last_words)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
