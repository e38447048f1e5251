import json
import re
import shutil
from importlib import metadata
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common.program.catalogue import list_candidates
from tests.benchmarks.gpu_session import __main__ as gpu_session
from tests.benchmarks.gpu_session import session, steps, wheels

from .bundles import runs
from .refused import refused


def test_a_step_that_fails_or_takes_too_long_leaves_the_others(tmp_path, monkeypatch, capsys):
    def run(queue):
        session = queue.session
        session.step("broken", "no_such_module")
        session.step("late", "timeit", "-n", 1, "print('begun', flush=True); __import__('time').sleep(60)", until=0.2)
        session.step("too late", "platform", until=0.0)
        session.step("good", "timeit", "-n", 1, "-r", 1, "print('bar', end='\\r'); print('done')")

    monkeypatch.setattr(session, "GRACE", 0.5)
    monkeypatch.setattr(gpu_session.Queue, "run", run)
    monkeypatch.setattr("sys.argv", ["gpu_session", "--minutes", "0.2", "--output", str(tmp_path)])
    assert gpu_session.main() == 1
    log = (tmp_path / "log.txt").read_text()
    assert re.search(r"s\] broken: FAILED \(exit code 1\): .*No module named no_such_module \[", log)
    assert re.search(r"s\] late: FAILED \(its time was up; exit code -15\): begun \[[12]\.\d s\]\nbegun\n", log)
    assert re.search(r"s\] too late: FAILED: no time is left\n", log)
    assert re.search(r"s\] good: passed \[.* s\]\ndone\n", log)
    assert log.endswith("] FAILED: broken, late, too late\n") and "] good: passed [" in capsys.readouterr().out


def test_figures_are_written_when_they_exist_and_say_how_long_to_train(tmp_path):
    figures, rows = tmp_path / "gpu.json", []

    def step(name, *words, **options):
        path = words[words.index("--output") + 1]
        if rows:  # a step that was ended early may leave no file
            path.write_text(json.dumps({"machine": {"device": "GPU"}, "parts": rows}))

    def rate_after(what, bundle, *found):
        rows[:] = [{"bundle": bundle, "training": "training", **row} for row in found]
        gpu_session.Queue(Mock(step=step), tmp_path, tmp_path, "udean_window").measure(bundle, what, 1.0)
        return steps.read_rate(figures, "udean_window")

    slow = {"part": "speed", "iterations_a_second": 7.0}
    assert steps.read_rate(figures, "udean_window") == rate_after("equality", "dasr") == steps.LEAST_RATE
    assert rate_after("speed", "ct_guided", slow) == steps.LEAST_RATE
    assert rate_after("speed", "udean_window", {"part": "speed", "error": "no"}) == steps.LEAST_RATE
    assert rate_after("speed", "udean_window", slow) == 7.0
    assert rate_after("equality", "udean_window", {"part": "resumed"}) == 7.0
    found = json.loads(figures.read_text())
    assert {kind: len(record["parts"]) for kind, record in found.items()} == {"equality": 1, "speed": 2}
    assert all(record["machine"] == {"device": "GPU"} for record in found.values())


def test_weights_that_are_kept_are_ready_for_the_bundle(tmp_path):
    """In its folder they are found by themselves, and MONAI runs them by their overlay."""
    models, trained = tmp_path / "udean_window" / "models", tmp_path / "trained"
    shutil.copytree(runs.ROOT / "bundles" / "udean_window" / "configs", models.parent / "configs")
    runs.save_weights("udean_window", trained / "models" / "model.pt")
    models.mkdir()
    gpu_session.Queue(Mock(), models, tmp_path, "udean_window").keep(trained)
    assert {candidate.name for candidate in list_candidates(str(models.parent), {}) if candidate.is_available} == {
        "udean_window 2x2x2, large"
    }
    files = "inference", str(models / "model_large")
    network = runs.content("udean_window", "evaluator#network", *files, bundle_root=str(models.parent))
    assert network.origin["path"] == str(models / "model_large.pt")


def test_the_table_says_whether_large_weights_ship(tmp_path):
    (folder := tmp_path / "evaluated").mkdir()
    refused(lambda: steps.table(str(tmp_path), str(folder)), RuntimeError, "has not ended")
    for gains, verdict in (((0.1, 0.6), "+0.35 dB, the mean of 2. They ship:"), ((0.1, 0.4), "They do not ship:")):
        rows = []
        for case, gain in enumerate(gains):
            found = {"cubic": 20.0, "udean_window, shipped": 30.0 + case, "large": 30.0 + case + gain}
            rows += [
                {"case": f"scan {case}", "method": name, "psnr": psnr, "ssim": 0.9} for name, psnr in found.items()
            ]
        (folder / "table.json").write_text(json.dumps({"cases": rows}))
        steps.table(str(tmp_path), str(folder))
        assert verdict in (tmp_path / "table.md").read_text()
    (folder / "table.json").write_text(json.dumps({"cases": [{"case": "a", "method": "large", "psnr": 30, "ssim": 1}]}))
    steps.table(str(tmp_path), str(folder))
    assert "nothing says" in (tmp_path / "table.md").read_text()


def test_what_is_carried_needs_nothing_else():
    carried = {canonicalize_name(pin.split("==")[0]) for pin in wheels.carried()}
    names = (wheels.ROOT / "tests/benchmarks/gpu_session/preinstalled.txt").read_text().split()
    there = carried | {canonicalize_name(name) for name in names}
    project = tomllib.loads((wheels.ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    needed = [*project, *(line for name in carried for line in metadata.requires(name) or ())]
    found = [Requirement(line) for line in needed]
    on = {"python_version": wheels.PYTHON, "extra": ""}
    assert {canonicalize_name(r.name) for r in found if r.marker is None or r.marker.evaluate(on)} <= there


def test_a_wheel_that_is_missing_and_too_much_to_carry_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wheels, "WHEELS", tmp_path)
    for name in ("labels", "scans"):
        monkeypatch.setattr(wheels, name.upper(), tmp_path / name)
    for pin in wheels.carried():
        refused(wheels.report, SystemExit, pin, "--fetch")
        (tmp_path / f"{pin.replace('-', '_').replace('==', '-')}-py3-none-any.whl").write_bytes(bytes(2**20))
    capsys.readouterr()
    wheels.report()
    rows = dict(line.split(" MiB  ")[::-1] for line in capsys.readouterr().out.splitlines())
    *parts, total = map(float, rows.values())
    assert [*rows][-1] == "total" and abs(total - sum(parts)) < 0.1 and parts[:-3] == [1.0] * len(wheels.carried())
    assert float(rows["labels"]) == float(rows["scans"]) == 0 and any(
        pin.startswith("nilearn==") for pin in wheels.carried()
    )
    labels = np.random.default_rng(0).integers(0, 531, (64, 64, 64))
    given = nib.load(runs.save(tmp_path / "maps" / "a.nii", labels, runs.OBLIQUE))
    wheels.pack(tmp_path / "maps", wheels.LABELS)
    (path,) = (tmp_path / "labels").iterdir()
    packed = nib.load(path)
    assert path.name == "a.nii.gz" and np.array_equal(packed.get_fdata(), labels)
    np.testing.assert_array_equal(packed.affine, given.affine)
    capsys.readouterr()
    wheels.report()
    assert float(re.search(r"([\d.]+) MiB  labels", capsys.readouterr().out)[1]) > 0.2
    assert not any(pin.startswith("nilearn==") for pin in wheels.carried())
    monkeypatch.setattr(wheels, "MOST_MIB", int(total))
    refused(wheels.report, SystemExit, "more than ")
