"""Programs side by side: each computes with its share of the threads, and ends when the one that started it is told to.

What kills that one at once (SIGKILL) leaves them running.
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


class Programs:
    """Programs that are started here, each in a thread of its own, and all end when this one is told to.

    It is a context, entered in the main thread. In it SIGTERM and the closing of the terminal end this program as
    Ctrl-C does, with KeyboardInterrupt, unless they are ignored. When the context is left by that or another error,
    each program that runs gets one SIGTERM, so that it can save how far it is, and its end is waited for; an
    interruption in that time kills them. They are in sessions of their own, or a terminal would send Ctrl-C to them
    too, and a trainer ends at once when it is told twice.

    Args:
        jobs: how many run side by side. With more than one, each computes with that part of the CPU's threads, at
            least one, and its threads wait passively, unless the environment says otherwise.
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
            command: the program and its words.
            log: file of what it prints, errors too.

        Returns:
            Its exit status, negative for the signal that ended it; of a program that was not started because all are
            being stopped, that of SIGTERM.
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

    def __enter__(self) -> Programs:
        numbers = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # Windows has no SIGHUP
        before = {number: signal.getsignal(number) for number in numbers}
        # nohup has one ignored; None is a handler that is not Python's.
        self.before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
        for number in self.before:
            signal.signal(number, _interrupt)
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
                print(f"\nstopping {len(running)} that run; once more stops at once", flush=True)
            for program in running:
                program.wait()
        except KeyboardInterrupt:
            for program in running:
                program.kill()
            raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
