"""``python -m common super-resolve``: what it does with each scan, and that it is the bundle's inference."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from common.commands.super_resolve import super_resolve
from common.errors import RunsFailedError
from common.files import load_state, read_about
from common.handlers.checkpoint import save_atomically

from ..bundles import runs
from ..clients import dicom

UNGUIDED = runs.ROOT / "bundles" / "guided_rdn" / "models" / "model_unguided.pt"


def scan(path, spacing, seed=0, shape=(22, 20, 18)):
    return runs.save(path, runs.phantom(seed, shape), np.diag([*spacing, 1.0]), dtype=np.int16)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def voxels(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_a_folder(tmp_path, capsys):
    """Each scan by the weights that suit it, as their bundle's inference.json does it; others fail by themselves."""
    data, output = tmp_path / "a#b", tmp_path / "a#b" / "super_resolved"
    spacings = {"x_t1": (1.5, 1.5, 1.5), "y_t1": (2, 2, 1)}
    for name, spacing in spacings.items():
        scan(data / name[0] / "t1.nii.gz", spacing)
    scan(data / "fine.nii", (0.3, 0.3, 0.3))
    (data / "bad.nii").write_bytes(b"no image")
    with pytest.raises(RunsFailedError) as error:
        super_resolve(str(data), dry_run=True)
    said = str(error.value)
    assert "2 of 4 scans could not be done" in said and "bad.nii: not a readable image" in said
    assert "fine.nii: no weights here suit voxels of 0.3 x 0.3 x 0.3 mm" in said and "say --bundle" in said
    assert f"would write {output / 'x_t1_sr.nii.gz'}\n  warning: not like the scans" in capsys.readouterr().out
    assert not output.exists()

    with pytest.raises(RunsFailedError, match="2 of 4 scans failed, the others are done"):
        super_resolve(str(data), projections=1)
    said = capsys.readouterr().out
    assert f"results go to {output}" in said
    assert "udean 2x2x2, 1.5 x 1.5 x 1.5 mm to 0.75 x 0.75 x 0.75 mm: x_t1\n" in said
    assert "udean 2x2x1, 2 x 2 x 1 mm to 1 x 1 x 1 mm: y_t1\n" in said
    for (name, spacing), weights in zip(spacings.items(), ("model", "model_2x2x1"), strict=True):
        lone = scan(tmp_path / name / "t1.nii.gz", spacing)
        checkpoint = str(runs.ROOT / "bundles" / "udean" / "models" / f"{weights}.pt")
        options = {"dataset_dir": str(lone), "projections": 1, "checkpoint": checkpoint}
        runs.run("udean", ["inference"], tmp_path / name, **options)
        expected = voxels(tmp_path / name / "out" / "t1_sr.nii.gz")
        np.testing.assert_array_equal(voxels(output / f"{name}_sr.nii.gz"), expected)

    # What stands there is neither a scan nor done again, for any part of the list.
    before = {path: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}
    for shard in ("1/2", "2/2"):
        with pytest.raises(RunsFailedError, match="1 of 1 scans failed"):
            super_resolve(str(data), skip_existing=True, shard=shard)
    assert {path: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")} == before


def test_what_is_asked_for(tmp_path):
    """Weights that were not trained on such scans are used where they are named; a guide chooses those that take it."""
    path = str(scan(tmp_path / "a_t2w.nii.gz", (0.5, 0.5, 4)))
    guide = str(scan(tmp_path / "guide" / "a_t1w.nii.gz", (0.25, 0.25, 4), shape=(44, 40, 18)))
    for option, factors in (
        ({"bundle": "guided_rdn"}, (2, 2, 1)),
        ({"scale": [2, 2, 1]}, (2, 2, 1)),
        ({"bundle": "guided_rdn", "guide": guide, "register": False}, (2, 2, 1)),
    ):
        super_resolve(path, str(tmp_path / "out"), device="cpu", **option)
        assert voxels(tmp_path / "out" / "a_t2w_sr.nii.gz").shape == tuple(np.multiply((22, 20, 18), factors))
    for option, message in (
        ({"bundle": "udean", "guide": guide}, "no weights for scans with a guide"),
        ({"guide": guide}, "of the nearest, guided_rdn 2x2x1, guided, its voxels are 2.5 times finer"),
    ):
        with pytest.raises(RunsFailedError, match=message):
            super_resolve(path, str(tmp_path / "out"), **option)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"dryrun": True}, ValueError, "--dryrun: no inference.json of .* did you mean dry_run"),
        ({"scale": [3, 3, 3]}, ValueError, r"one that there are weights for: \[\[1, 1, 2\], .*\[2, 2, 2\]\]"),
        ({"path": "nowhere"}, FileNotFoundError, "nowhere: there is no such file or folder"),
        ({"shard": "3/2"}, ValueError, "shard is '3/2'"),
        ({"checkpoint": "none.pt"}, FileNotFoundError, r"--checkpoint none\.pt: there is no such file"),
        ({"checkpoint": str(UNGUIDED), "bundle": "udean"}, ValueError, "weights of guided_rdn, expected .* udean"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_said_before_anything_is_done(tmp_path, options, error, message):
    path = str(scan(tmp_path / "a.nii", (1.5, 1.5, 1.5)))
    with pytest.raises(error, match=message):
        super_resolve(**{"path": path, **options})
    assert files(tmp_path) == ["a.nii"]


def test_own_weights_and_what_a_dry_run_finds(tmp_path, capsys):
    """Weights that do not say on what they were trained are used where they are named; each problem is one scan's."""
    weights, about = load_state(UNGUIDED, "cpu"), read_about(UNGUIDED)
    del about["defaults"]["training_range"]
    save_atomically(weights, tmp_path / "own.pt", about)
    good = scan(tmp_path / "in" / "good.nii", (3, 3, 9))
    flat = nib.load(scan(tmp_path / "in" / "flat.nii", (3, 3, 9)))
    flat.header["srow_x"] = 0  # which nibabel does not look at
    nib.save(
        flat.__class__(voxels(tmp_path / "in" / "flat.nii").copy(), None, flat.header), tmp_path / "in" / "flat.nii"
    )
    own = {"checkpoint": str(tmp_path / "own.pt"), "guided": False, "dry_run": True}
    with pytest.raises(RunsFailedError, match=r"1 of 2 scans .*\n  .*flat\.nii: its affine is not inver"):
        super_resolve(str(tmp_path / "in"), **own)
    said = capsys.readouterr().out
    assert "guided_rdn 2x2x1" in said and f"would write {tmp_path / 'in' / 'super_resolved' / 'good_sr.nii.gz'}" in said
    with pytest.raises(RunsFailedError, match=r"features is 8, but these weights were trained with 32"):
        super_resolve(str(good), features=8, **own)
    # Which axis runs across slices that are as thick as pixels nobody knows.
    even = str(scan(tmp_path / "even.nii", (2, 2, 2.4)))
    with pytest.raises(RunsFailedError, match=r"does not tell which axis .*--slice_axis SI"):
        super_resolve(even, **own)
    super_resolve(even, slice_axis="SI", **own)


def test_dicom(tmp_path, capsys):
    """A series comes back as a derived one beside its NIfTI, which is no scan the next time."""
    images = dicom.Series().save(tmp_path / "elsewhere")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    super_resolve(str(tmp_path / "in"), bundle="udean", projections=0)
    made = files(tmp_path / "in" / "super_resolved")
    (result,) = [name for name in made if name.endswith("_sr.json")]
    told = json.loads((tmp_path / "in" / "super_resolved" / result).read_text())
    assert told["Sources"] == [f"{tmp_path / 'in' / 'linked'} (DICOM series {images[0].SeriesInstanceUID})"]
    derived = [name for name in made if name.endswith(".dcm")]
    assert len(derived) == 2 * len(images)
    image = dicom.read((tmp_path / "in" / "super_resolved" / derived[0]).parent)[0]
    assert image.ReferencedSeriesSequence[0].SeriesInstanceUID == images[0].SeriesInstanceUID
    super_resolve(str(tmp_path / "in"), bundle="udean", skip_existing=True)
    said = capsys.readouterr().out
    assert "1 of 2 DICOM series are results of super-resolution" in said and "1 of 1 scans have their results" in said
    assert files(tmp_path / "in" / "super_resolved") == made


@pytest.mark.slow
def test_installed(tmp_path):
    """What pip installs runs in a folder that has nothing of this repository, by two processes that share the scans."""
    target, place = tmp_path / "site", tmp_path / "elsewhere"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    # From a copy, as setuptools builds where the sources are.
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", str(runs.ROOT), str(source)], check=True)
    subprocess.run([sys.executable, *install, str(source)], check=True)
    for name in "abc":
        scan(place / "in" / f"{name}.nii.gz", (1.5, 1.5, 1.5), shape=(12, 12, 12))
    (place / "in" / "bad.nii.gz").write_bytes(b"no image")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "mri_sr_bundles.common"]
    done = subprocess.run(
        [sys.executable, *torchrun, "super-resolve", "in", "out"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and done.stderr.count("1 of 4 scans failed, the others are done:") == 1, done.stderr
    assert {path.name for path in (place / "out").glob("*.nii.gz")} == {f"{name}_sr.nii.gz" for name in "abc"}
    assert (target / "bin" / "mri-sr").is_file()
