"""How long work still takes: what is said of it while it is done, and what a terminal and a file get to see."""

import fcntl
import io
import os
import struct
import sys
import termios
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import Dataset

from common.data import CaseLoader, find_scans, prepare_lr_hr
from common.degradations import DegradeAndInterpolate, GaussianProfile, KSpaceTruncation
from common.engines import CaseEvaluator
from common.inferers import (
    AdaptedInferer,
    AxesInferer,
    CascadeInferer,
    OrthogonalInferer,
    SlabInferer,
    SliceInsertionInferer,
    ZeroShotInferer,
    adapted,
)
from common.runtime import progress
from common.transforms import LoadScand


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to; call it with seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def goes_on(seconds):
        now[0] += seconds

    return goes_on


def errors(told, start, end):
    """Of what was told: share of the whole that was done, and error of the time that was left, as a share of that.

    In the last tenth it is a share of a tenth of the whole.
    """
    known = [((when - start) / (end - start), left / (end - start)) for when, left in told if left == left]
    return [(done, abs(left - (1 - done)) / max(1 - done, 0.1)) for done, left in known]


SAME = KSpaceTruncation((1, 1, 1))
TILES = SlabInferer(SAME)
TILES.tile, TILES.halo = 8, 2
INFERERS = {
    "tiles": TILES,
    "axes": AxesInferer(SlabInferer(SAME), axes=(0, 2)),
    "directions": OrthogonalInferer([0, 1], batch=2),
    "cascade": CascadeInferer(1.5, 2),
    "halvings": SliceInsertionInferer(KSpaceTruncation((1, 1, 4)), batch=1),
}


@pytest.mark.parametrize("name", INFERERS)
def test_inferers_tell_how_long_they_take(name, clock):
    """A network whose first call takes twice as long as others."""
    told, calls = [], []

    def network(images, stage=0):
        clock(images.numel() * (1 if calls else 2))
        calls.append(images.numel())
        return images[:, :1]

    start = time.perf_counter()
    with progress.listen(lambda left: told.append((time.perf_counter(), left))):
        INFERERS[name](torch.rand(1, 1, 14, 12, 11), network)
    found = errors(told, start, time.perf_counter())
    assert len(found) >= len(calls) - 5 and told[-1] == (time.perf_counter(), 0)
    assert max(error for done, error in found if done > 0.2) < 0.2


def test_steps_and_parts_add_up_and_a_failure_leaves_no_listener(clock):
    told = []
    with (
        pytest.raises(ZeroDivisionError),
        progress.listen(told.append),
        progress.begin_step(then=7),
        progress.begin_part(1, 3),
    ):
        clock(100)
        progress.report_share(0.5)  # what was before happens but once
        clock(2)
        progress.report_share(0.75)
        raise ZeroDivisionError
    # 2 s are left of this part; it and the one before it have 104 s, and there is one more.
    progress.report_share(1)
    assert told == [2 + 104 / 2 + 7]
    with progress.listen(told.append), progress.begin_part(0, 3, growth=2):
        clock(10)
    assert told[1:] == [60]


def write(path, shape):
    data = np.random.default_rng(0).integers(1, 1000, size=shape).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([1.0, 1, 3, 1])), path)


def test_all_that_is_done_with_scans_is_in_the_time_that_is_left(clock, monkeypatch, tmp_path):
    """Loading, fine-tuning, three directions, data consistency and saving, none of which takes as long as another."""
    shapes = {"a": (24, 16, 9), "b": (16, 14, 8), "d": (24, 24, 10)}
    for name, shape in shapes.items():
        write(tmp_path / f"{name}.nii", shape)
    (tmp_path / "c.nii").write_bytes(b"no scan")
    monkeypatch.setattr(adapted, "_TRIED", (4, 8))
    monkeypatch.setattr("common.inferers.consistent._SECONDS", 1 / 20)

    class Slow(GaussianProfile):
        def forward(self, volume):
            clock(volume.numel() / 20)
            return super().forward(volume)

    class Network(torch.nn.Conv2d):
        """At first what it is given; what it learns is better."""

        def __init__(self):
            super().__init__(1, 1, 3, padding=1)
            torch.nn.init.dirac_(self.weight)
            torch.nn.init.zeros_(self.bias)

        def forward(self, images):
            clock(images.numel() * (1.5 if self.training else 1))
            return super().forward(images)

    thicken = Slow((1, 1, 3))
    inferer = AdaptedInferer(
        ZeroShotInferer(thicken, ensemble=False, iterations=8), DegradeAndInterpolate(thicken), 25, 4, (8, 8)
    )

    def load(entry):
        clock(500)
        return LoadScand("image", slice_axis="auto")(entry)

    def save(output):
        clock(output["pred"].numel() / 10)
        return output

    evaluator = CaseEvaluator(
        torch.device("cpu"),
        CaseLoader(Dataset(find_scans(str(tmp_path)), load)),
        Network(),
        inferer=inferer,
        prepare_batch=prepare_lr_hr,
        postprocessing=save,
    )
    evaluator.after, told, tell = 3 / 10, [], progress.ProgressBar.show_seconds_left
    monkeypatch.setattr(
        progress.ProgressBar,
        "show_seconds_left",
        lambda bar, left: (told.append((time.perf_counter(), left)), tell(bar, left)),
    )
    start = time.perf_counter()
    with pytest.raises(Exception, match="1 of 4 cases failed"):
        evaluator.run()
    found = errors(told, start, time.perf_counter())
    assert len(found) > 200
    assert max(error for done, error in found if done > 0.05) < 0.2
    ends = [case.ended for case in evaluator.cases]
    known = [sum(before < when <= end for when, _ in told) for before, end in zip([start, *ends], ends, strict=False)]
    assert min(known[0], known[1], known[3]) > 50


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


def test_a_terminal_shows_a_bar_that_goes_at_the_end(monkeypatch, clock):
    """Of several processes the first does, unless it is hidden."""
    monkeypatch.setattr(progress, "tqdm", partial(progress.tqdm, mininterval=0))
    with terminal(monkeypatch) as read:
        with progress.show_progress("scan"):
            progress.report_share(0)
            clock(10)
            progress.report_share(0.25)
        text = read()
    assert " 25%|" in text and "scan, about 30 s left" in text and text.endswith("\r") and "\n" not in text
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        with terminal(monkeypatch) as read:
            with progress.hide_progress(rank == "0"), progress.show_progress("scan"):
                progress.report_share(0.25)
            assert read() == ""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_file_gets_a_line_every_30_seconds(monkeypatch, clock, rank):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    turn, done, waits = threading.Semaphore(0), threading.Semaphore(0), []

    class Closed(threading.Event):
        def wait(self, seconds):
            waits.append(seconds)
            done.release()
            turn.acquire()
            return self.is_set()

    monkeypatch.setattr(progress, "threading", SimpleNamespace(Event=Closed, Thread=threading.Thread))
    with progress.ProgressBar("2/5 scan") as bar:
        for left in (None, 400.0, 1000.0, 5.0) if rank == "0" else ():
            done.acquire()
            clock(30)
            if left is not None:
                bar.show_seconds_left(left)
            clock(10)
            turn.release()
        if rank == "0":
            done.acquire()
        turn.release()
        bar._closed.set()
    lines = [
        "2/5 scan: 40 s so far",
        "2/5 scan: 14 % done, about 6 min 30 s left",
        "2/5 scan: 14 % done, about 16 min left",  # an estimate may go back, what is done does not
        "2/5 scan: 96 % done, about 1 s left",
    ]
    assert sys.stderr.getvalue() == "".join(f"{line}\n" for line in lines) * (rank == "0")
    assert set(waits) <= {30.0}
