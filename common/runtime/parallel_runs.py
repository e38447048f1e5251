"""Run programs in parallel: each gets a share of the threads, and is stopped together with this program.

If this program is killed by SIGKILL, they go on running.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import TextIO

import torch


class ProgramRunner:
    """Starts programs, each from a thread of its own, and stops them all when this program is stopped.

    It is a context manager for the main thread. Within it, SIGTERM and the closing of the terminal raise
    KeyboardInterrupt, like Ctrl-C, unless they are ignored. After this or another error, each running program gets one
    SIGTERM, so that it can save its state. Their ends are awaited; a second interruption kills them. Each runs in a
    session of its own. Otherwise a terminal would send Ctrl-C to them too, and a trainer ends at once after a second
    signal.

    Args:
        jobs: number of programs that run in parallel. If it is above 1, each gets an equal share of the CPU's threads,
            at least one, and its threads wait passively, unless the environment says otherwise.
    """

    def __init__(self, jobs: int) -> None:
        self.environment = dict(os.environ)
        if jobs > 1:
            self.environment.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // jobs)))
            self.environment.setdefault("OMP_WAIT_POLICY", "passive")
        self.running: list[subprocess.Popen] = []
        self.lock = threading.Lock()
        self.stopping = False

    def run(self, command: Sequence[str], log: TextIO) -> int:
        """Run a program and wait for its end.

        Args:
            command: the program and its arguments.
            log: file for its output and errors.

        Returns:
            Its exit status; if a signal ended it, the negative number of the signal. While programs are being stopped,
            none is started, and the result is that of SIGTERM.
        """
        with self.lock:
            if self.stopping:
                return -signal.SIGTERM
            program = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
            self.running.append(program)
        try:
            return program.wait()
        finally:
            with self.lock:
                self.running.remove(program)

    def __enter__(self) -> ProgramRunner:
        numbers = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # Windows has no SIGHUP
        before = {number: signal.getsignal(number) for number in numbers}
        # nohup ignores SIGHUP. None is a handler that Python did not install.
        self.before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
        for number in self.before:
            signal.signal(number, _raise_interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._stop()
        finally:
            for number, handler in self.before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        with self.lock:
            self.stopping = True
            running = list(self.running)
        try:
            for program in running:
                program.terminate()
            if running:
                print(f"\nstopping {len(running)} running programs; interrupt again to kill them", flush=True)
            for program in running:
                program.wait()
        except KeyboardInterrupt:
            for program in running:
                program.kill()
            raise


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
