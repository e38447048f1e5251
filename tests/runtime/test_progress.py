"""Progress bars: one total for all scans, lines where there is no terminal, and nothing under --quiet."""

import fcntl
import os
import re
import struct
import sys
import termios
import time
from contextlib import contextmanager, suppress

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import Dataset

from common.data import prepare_lr_hr
from common.degradations import DegradeAndInterpolate, GaussianProfile, KSpaceTruncation
from common.inferers import (
    AdaptedInferer,
    AxesInferer,
    CascadeInferer,
    OrthogonalInferer,
    SlabInferer,
    SliceInsertionInferer,
    ZeroShotInferer,
)
from common.program.cases.evaluator import CaseEvaluator
from common.program.cases.scans import find_scans
from common.runtime import progress
from common.transforms import LoadScand

TQDM = progress.tqdm
SAME = KSpaceTruncation((1, 1, 1))
TILES = SlabInferer(SAME)
TILES.tile, TILES.halo = 8, 2
THICK = GaussianProfile((1, 1, 3))
ZERO_SHOT = ZeroShotInferer(THICK, ensemble=False)
INFERERS = {
    "tiles": TILES,
    "axes": AxesInferer(SlabInferer(SAME), axes=(0, 2)),
    "directions": OrthogonalInferer([0, 1], batch=2),
    "cascade": CascadeInferer(1.5, 2),
    "halvings": SliceInsertionInferer(KSpaceTruncation((1, 1, 4)), batch=1),
    "adapted": AdaptedInferer(ZERO_SHOT, DegradeAndInterpolate(THICK), 5, 4, (8, 3)),
}


@pytest.mark.parametrize("name", INFERERS)
@pytest.mark.parametrize("index", [0, 2])
def test_an_item_fills_its_part_of_the_bar_step_by_step(name, index, monkeypatch):
    """Also where the parts are unequal, and no bar is moved outside."""

    class Network(torch.nn.Conv2d):
        def forward(self, images, stage=0):
            return images[:, :1] * self.weight.mean()

    steps, volume = [], torch.rand(1, 1, 14, 12, 11)
    bar = progress.tqdm(total=3, file=open(os.devnull, "w"))
    monkeypatch.setattr(bar, "update", lambda more: steps.append(more) or setattr(bar, "n", bar.n + more))
    with progress.fill_bar(bar, index):
        INFERERS[name](volume, network := Network(1, 1, 1))
    moved = [step for step in steps if step > 1e-9]
    assert bar.n == pytest.approx(index + 1) and min(steps) >= 0 and len(moved) >= 4
    assert max(moved[1:]) < 0.6 and progress._part.get() is None
    steps.clear()
    INFERERS[name](volume, network)
    assert not steps


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


@pytest.mark.parametrize("shown, quiet, rank", [(True, False, "0"), (False, True, "0"), (False, False, "1")])
def test_a_terminal_shows_one_total_of_all_scans(monkeypatch, capsys, tmp_path, shown, quiet, rank):
    """A scan that fails is passed; --quiet and further processes show nothing, and neither does a file."""
    monkeypatch.setenv("RANK", rank)
    for name in "abd":
        volume = np.random.default_rng(0).integers(1, 1000, size=(16, 14, 9)).astype(np.int16)
        nib.save(nib.Nifti1Image(volume, np.diag([1.0, 1, 3, 1])), tmp_path / f"{name}.nii")
    (tmp_path / "c.nii").write_bytes(b"no scan")
    monkeypatch.setattr(progress.tqdm, "monitor_interval", 0)
    monkeypatch.setattr(progress, "tqdm", lambda *args, **options: TQDM(*args, **options | {"mininterval": 0}))

    def run():
        scans = Dataset(find_scans(str(tmp_path)), LoadScand("image", slice_axis="auto"))
        device = torch.device("cpu")
        evaluator = CaseEvaluator(
            device, scans, torch.nn.Identity(), inferer=TILES, prepare_batch=prepare_lr_hr, postprocessing=lambda x: x
        )
        with progress.silence(quiet), pytest.raises(Exception, match="1 of 4 cases failed"):
            evaluator.run()

    with terminal(monkeypatch) as read:
        run()
        text = read()
    assert text == "" if not shown else "b:  " in text and "4.00/4.00 [" in text and "scan" in text
    run()
    assert capsys.readouterr().err == ""


def test_without_a_terminal_long_work_is_said_in_a_few_lines(monkeypatch, capsys):
    """From 1 % on, with the time that is left; never under --quiet."""
    monkeypatch.setattr(progress, "_SECONDS", 0.05)
    for quiet in (False, True):
        with progress.silence(quiet), progress.make_bar(total=2, unit="scan") as bar:
            bar.set_description("head")
            with progress.fill_bar(bar, 1):
                for _ in progress.track(range(40)):
                    time.sleep(0.01)
        lines = capsys.readouterr().err.splitlines()
        assert (lines == []) == quiet and len(lines) < 10
        assert all(re.fullmatch(r"head: \d+ %, [\d:]+ done, [\d:]+ left", line) for line in lines)
