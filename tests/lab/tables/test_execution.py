"""The program of a run, and what becomes of it when the one that started it is interrupted."""

import os
import signal
import sys
from threading import Thread

import pytest

from common.lab.tables.execution import run_program

# Tells that it waits, and what it then got. It ends by that, or stays and interrupts the one that started it again.
WAITS = """
import os, signal, sys
def got(number, frame):
    print("got", number, flush=True)
    if sys.argv[2] == "ends":
        os._exit(3)
    os.kill(os.getppid(), signal.SIGTERM)
signal.signal(signal.SIGTERM, got)
with open(sys.argv[1], "w") as ready:
    ready.write(str(os.getpid()))
while True:
    signal.pause()
"""


@pytest.fixture(autouse=True)
def signals():
    """Of tests in the background, or under nohup, they might be ignored."""
    mine = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in mine.items()}
    yield
    assert {number: signal.signal(number, handler) for number, handler in before.items()} == mine


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("manner", ["ends", "stays"])
def test_it_ends_with_the_program_that_started_it(tmp_path, number, manner):
    """It is told once, by SIGTERM, and waited for; if it does not end, a second interruption kills it."""
    os.mkfifo(tmp_path / "ready")
    told = []

    def interrupt():
        told.append(int((tmp_path / "ready").read_text()))
        os.kill(os.getpid(), number)

    interrupting = Thread(target=interrupt)
    interrupting.start()
    with (tmp_path / "log.txt").open("w") as log, pytest.raises(KeyboardInterrupt):
        run_program([sys.executable, "-S", "-c", WAITS, str(tmp_path / "ready"), manner], log)
    interrupting.join()
    assert (tmp_path / "log.txt").read_text() == "got 15\n"
    with pytest.raises(ProcessLookupError):
        os.kill(told[0], 0)


def test_what_is_ignored_stays_ignored(tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with (tmp_path / "log.txt").open("w") as log:
        assert run_program(["sh", "-c", "kill -HUP $PPID; echo said; exit 5"], log) == 5
    assert (tmp_path / "log.txt").read_text() == "said\n"
    assert signal.signal(signal.SIGHUP, signal.SIG_DFL) == signal.SIG_IGN
