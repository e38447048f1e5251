"""Runs in processes of their own: killed again and again and resumed, and two that share a training."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from .. import forked
from . import runs


def always_saved(bundle):
    """Overrides that save a state after every iteration, in every stage."""
    sections = runs.content(bundle, None, "train").get().items()
    return {f"{k}#trainer#run_folder#save_minutes": 0 for k, v in sections if isinstance(v, dict) and "trainer" in v}


class Killed:
    """A run in a process of its own, started from a fork server that has imported everything."""

    EPOCHS, EPOCH = 6, 5

    def __init__(self, bundle, folder, cohort):
        self.tiny, self.folder = runs.TINY[bundle], folder
        folder.mkdir()
        length = {"dataset_dir": cohort, **always_saved(bundle), **self.tiny.lasting(self.EPOCHS, self.EPOCH)}
        self.line = runs.words(bundle, ["train"], folder, resume=True, **length)

    def start(self):
        """Start or continue it, by the same command."""
        self.before = self.logged()
        log = self.folder / "log.txt"
        self.process = forked.start(["monai.bundle", *self.line], runs.ROOT, log, log)

    def join(self):
        """Wait for its end, which must be a good one or that of kill -9. Returns whether it finished."""
        self.process.join()
        assert self.process.exitcode in (0, -signal.SIGKILL), (self.folder / "log.txt").read_text()
        return self.process.exitcode == 0

    def logged(self):
        """The lines of history that each of its trainings has written."""
        paths = [self.folder / "out" / f"history{stage}.jsonl" for stage in self.tiny.stages]
        return [path.read_text().splitlines() if path.is_file() else [] for path in paths]

    def kill_while(self, moment, rng):
        """Let it run on until that moment, a phase of a training, and kill it then at random; or until it ends.

        It runs for a few milliseconds at a time and is looked at while it stands still.
        """
        chance = {"starting": 0.02, "training": 0.05, "validating": 0.4, "writing": 0.6, "finishing": 0.05}[moment[0]]
        while self.process.is_alive():
            time.sleep(0.004 * rng.random())
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGSTOP)
                now = self.moment() == moment and rng.random() < chance
                os.kill(self.process.pid, signal.SIGKILL if now else signal.SIGCONT)

    def moment(self):
        """What it is doing, and in which training."""
        logged = self.logged()
        stage = max([i for i, lines in enumerate(logged) if lines], default=0)
        if any((self.folder / "models").glob(".part-*")):
            return "writing", stage
        if logged == self.before:
            return "starting", stage
        try:
            last = json.loads(logged[stage][-1])
        except (IndexError, ValueError):
            return "training", stage
        if "validation/psnr" in last or last["iteration"] % self.EPOCH:
            return "training", stage
        if self.tiny.stages[stage] not in self.tiny.unvalidated:
            return "validating", stage
        return "finishing" if last["iteration"] == self.EPOCHS * self.EPOCH else "training", stage


@pytest.mark.slow
@runs.each_form
def test_killed_and_resumed(bundle, tiny, cohort, tmp_path):
    """Killed at random moments of each phase of each training and started again, a run ends as one never stopped.

    A run that ends before its kills are spent is compared, and another one is begun.
    """
    whole = Killed(bundle, tmp_path / "whole", cohort)
    whole.start()
    assert whole.join()
    expected = runs.results(bundle, whole.folder)
    lengths = [tiny.logged(stage, whole.EPOCHS, whole.EPOCH) for stage in tiny.stages]
    assert [len(lines) for lines in whole.logged()] == lengths

    rng = random.Random(0)
    moments = []
    for stage, name in enumerate(tiny.stages):
        then = "finishing" if name in tiny.unvalidated else "validating"
        phases = ["starting", "training", then, "writing"] * (5 if len(tiny.stages) == 1 else 2)
        rng.shuffle(phases)
        moments += [(phase, stage) for phase in phases]
    kills = []
    for attempt in range(20):
        run = Killed(bundle, tmp_path / f"run_{attempt}", cohort)
        finished = False
        while not finished:
            run.start()
            if len(kills) < len(moments):
                run.kill_while(moments[len(kills)], rng)
            finished = run.join()
            if not finished:
                kills.append([len(lines) for lines in run.logged()])
        assert runs.same(runs.results(bundle, run.folder), expected), f"killed after these lines of history: {kills}"
        if len(kills) == len(moments):
            return
    pytest.fail(f"of {len(moments)} moments only {len(kills)} came; none was {moments[len(kills)]}")


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["udean", "guided_rdn", "ct_guided"])  # HR alone, with guides, and with CT
def test_bare_at_its_own_size(bundle, tmp_path):
    """Train.json on few simulated heads begins, ends when it is interrupted, and goes on from there."""
    simulated = runs.content(bundle, None, "train", "demo")["dataset_dir"]
    lists = dict(simulated["datalist"])
    if "split" in lists:
        lists["split"] = [min(n, 1) for n in lists["split"]]
        heads = sum(lists["split"])
    else:
        groups = ["source", "target", "validation", "test"]
        lists |= {g: re.sub(r"sub-[^/]*", f"sub-00{i}", lists[g].split(",")[0]) for i, g in enumerate(groups, 1)}
        heads = len(groups)
    few = ["--dataset_dir", str({**simulated, "subjects": heads, "datalist": lists})]
    done = [0]
    for words in ([], ["--resume", "True"]):
        config = ["--config_file", *runs.configs(bundle, "train"), "--output_dir", str(tmp_path)]
        process = subprocess.Popen(
            [sys.executable, "-m", "monai.bundle", "run", *config, *few, *words],
            cwd=runs.ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = []
        for line in process.stderr:
            said.append(line)
            reached = re.match(r"training, iteration (\d+) of", line)
            if reached and int(reached[1]) > done[-1]:
                process.terminate()  # Ctrl-C is ignored where the tests run in the background
        assert process.wait() == 130, "".join(said)
        assert "--resume True goes on" in said[-1]
        (history,) = tmp_path.glob("history*.jsonl")
        steps = [json.loads(line)["iteration"] for line in history.read_text().splitlines()]
        assert steps == list(range(1, len(steps) + 1)) and len(steps) > done[-1]
        done.append(len(steps))


@pytest.mark.slow
@runs.each_form
def test_two_processes(bundle, tiny, cohort, tmp_path):
    """Two processes with half the batch each follow the loss curves of one with the whole."""
    length = {"dataset_dir": cohort, "epoch_length": 6, "batch_size": 4}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

    def train(name, configs, launcher, **override):
        done = runs.command(bundle, configs, tmp_path / name, launcher=launcher, **length, **override)
        assert done.returncode == 0, done.stderr

    train("one", ["train"], [sys.executable])
    two = ["train"], torchrun
    if tiny.folders:
        # What adversaries have learned differs by rounding, which grows without bound: the next stage gets the same.
        train("two", *two, only_stages=1)
        for folder in tiny.folders:
            shutil.rmtree(tmp_path / "two" / "models" / folder)
            shutil.copytree(tmp_path / "one" / "models" / folder, tmp_path / "two" / "models" / folder)
        train("two", *two, only_stages=2)
    else:
        train("two", *two)
    for stage in tiny.stages:
        one, two = runs.history(tmp_path / "one", stage), runs.history(tmp_path / "two", stage)
        assert len(one) == len(two) == tiny.logged(stage, *(tiny.length(stage) if stage in tiny.lengths else (2, 6)))
        for first, second in zip(one, two, strict=True):
            assert first.keys() == second.keys()
            np.testing.assert_allclose([*second.values()], [*first.values()], rtol=1e-4, atol=1e-4)
    folders = [tmp_path / name / "models" for name in ("one", "two")]
    written = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in folders]
    assert written[0] == written[1]


@pytest.mark.parametrize("bundle", ["srcnn"], indirect=True)
def test_two_processes_share_scans(bundle, tiny, trained, tmp_path):
    """The results are those of one; what fails in either is in one list; what is done is not done again."""
    scans, one, two = (tmp_path / name for name in ("scans", "one", "two"))
    for name in "abc":
        tiny.save_lr(scans, name, runs.phantom(0))

    def super_resolve(output, *words):
        chosen = ["--checkpoint", trained / "models" / "model.pt", "--bundle", bundle, "--scale", "2x2x1"]
        line = [*words, "-m", "common", "super-resolve", scans, "--output_dir", output, *chosen, "--skip_existing"]
        return subprocess.run([sys.executable, *line], cwd=runs.ROOT, capture_output=True, text=True, check=False)

    assert super_resolve(one).returncode == 0
    bad = [scans / f"{tiny.case(name)}.nii.gz" for name in "xy"]
    for path in bad:
        path.write_bytes(b"no image")
    done = super_resolve(two, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    assert done.returncode != 0
    (listing,) = re.findall(r"\berror: 2 of 5 scans failed, the others are done:\n(?:.*  /.*\n)*", done.stderr)
    assert all(str(path) in listing for path in bad)
    results = [{path.name: path.read_bytes() for path in folder.glob("*.nii.gz")} for folder in (one, two)]
    assert results[0] == results[1] and len(results[0]) == 3

    for path in bad:
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in two.glob("*.nii.gz")}
    assert super_resolve(two).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in two.glob("*.nii.gz")} == before
