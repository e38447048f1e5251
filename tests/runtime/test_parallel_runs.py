"""Programs side by side: their threads, and what becomes of them when the one that started them is stopped."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from common.runtime.parallel_runs import ProgramRunner

# Tells that it waits, and what it then got. It ends by that, or stays, or stays and has this program told again.
WAITS = """
import os, signal, sys
def got(number, frame):
    print("got", number, flush=True)
    if sys.argv[2] == "ends":
        os._exit(3)
    if sys.argv[2] == "again":
        os.kill(os.getppid(), signal.SIGTERM)
signal.signal(signal.SIGTERM, got)
with open(sys.argv[1], "w") as ready:
    ready.write("x")
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


@pytest.mark.parametrize(
    ("jobs", "said", "found"),
    [(1, {}, "- -"), (2, {}, "4 passive"), (16, {}, "1 passive"), (2, {"OMP_NUM_THREADS": "7"}, "7 passive")],
)
def test_each_has_its_share_of_the_threads(tmp_path, monkeypatch, jobs, said, found):
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    torch.set_num_threads(8)
    with (tmp_path / "log.txt").open("w") as log, ProgramRunner(jobs) as programs:
        assert programs.run(["sh", "-c", "echo ${OMP_NUM_THREADS--} ${OMP_WAIT_POLICY--}; exit 5"], log) == 5
    assert (tmp_path / "log.txt").read_text() == f"{found}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize(("manners", "status"), [(["ends", "ends"], 3), (["again", "stays"], -signal.SIGKILL)])
def test_all_end_with_the_program_that_started_them(tmp_path, number, manners, status):
    """Each is told once, by SIGTERM, and waited for; those that do not end are killed when this is told again."""

    def run(programs, name, manner):
        with (tmp_path / f"{name}.txt").open("w") as log:
            return programs.run([sys.executable, "-S", "-c", WAITS, str(tmp_path / name), manner], log)

    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(KeyboardInterrupt), ProgramRunner(2) as programs:
            for name in "ab":
                os.mkfifo(tmp_path / name)
            ends = [pool.submit(run, programs, *pair) for pair in zip("ab", manners, strict=True)]
            assert [(tmp_path / name).read_text() for name in "ab"] == ["x", "x"]  # both wait
            signal.raise_signal(number)
        assert [end.result() for end in ends] == [status, status]
        assert run(programs, "late", "ends") == -signal.SIGTERM
    if status == 3:
        assert [(tmp_path / f"{name}.txt").read_text() for name in "ab"] == ["got 15\n", "got 15\n"]
    assert (tmp_path / "late.txt").read_text() == ""


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ProgramRunner(1):
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.signal(signal.SIGHUP, signal.SIG_DFL) == signal.SIG_IGN
