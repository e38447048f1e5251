"""How far work is: what inferers report of it, and what a terminal and a file get to see."""

import fcntl
import io
import os
import struct
import sys
import termios
from contextlib import contextmanager, suppress

import pytest
import torch

from common.degradations import KSpaceTruncation
from common.inferers import AxesInferer, CascadeInferer, OrthogonalInferer, SlabInferer
from common.runtime import progress

SAME = KSpaceTruncation((1, 1, 1))
# Each with the number of times that it reports, more than one a tile, axis, direction or stage.
INFERERS = {
    "tiles": (SlabInferer(SAME, tile=8, halo=2), 3 * 5),
    "axes": (AxesInferer(SlabInferer(SAME), axes=(0, 2)), 10 + 1 + 5 + 1),
    "directions": (OrthogonalInferer([0, 1], batch=4), 3 + 1 + 2 + 1),
    "cascade": (CascadeInferer(1.5, 2, 1), 5 + 1 + 5 + 1),
}


@pytest.mark.parametrize("name", INFERERS)
def test_inferers_report_what_is_done(name):
    (inferer, count), shares = INFERERS[name], []
    with progress.listening(shares.append):
        inferer(torch.rand(1, 1, 10, 8, 5), lambda images, stage=0: images[:, :1])
    assert len(shares) == count and shares == sorted(shares) and shares[0] > 0 and shares[-1] == 1
    assert max(b - a for a, b in zip([0, *shares], shares, strict=False)) <= 0.25


def test_without_a_listener_nothing_happens_and_a_failure_leaves_none():
    seen = []
    with pytest.raises(ZeroDivisionError), progress.listening(seen.append), progress.part(1, 4):
        progress.report(0.5)
        raise ZeroDivisionError
    progress.report(0.7)
    assert seen == [0.375]


@contextmanager
def terminal(monkeypatch):
    """A terminal of 30 x 100 in the place of stderr; call what it gives, at the end, to read what was written to it."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    with os.fdopen(slave, "w") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", file)

        def read():
            file.close()
            parts = []
            with suppress(OSError):  # as Linux says the end of a terminal
                parts.extend(iter(lambda: os.read(master, 1 << 16), b""))
            return b"".join(parts).decode()

        yield read
    os.close(master)


def test_a_terminal_shows_a_bar_that_goes_at_the_end(monkeypatch):
    """Of several processes the first does; a file shows none."""
    with terminal(monkeypatch) as read:
        with progress.shown(2, "scans"):
            progress.report(0.25)
        text = read()
    assert "0.0 of 2 scans" in text and text.endswith("\r")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with terminal(monkeypatch), progress.bar(1, "scan") as bar:
            assert bool(bar.disable) == (rank == "1")
    monkeypatch.delenv("RANK")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.shown(2, "scans"):
        progress.report(0.5)
    assert sys.stderr.getvalue() == ""
