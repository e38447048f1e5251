"""Damaged inputs to inference: each a clear error or a whole result, nothing in between."""

import contextlib
import json
import re
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch

from common.io.images import open_image
from common.io.slice_thickness import read_profile_width
from common.program.cases.scan_kinds import explain_unsuitable_file
from common.program.provenance import read_source_metadata
from common.transforms import LoadScand
from tests import malformed

from . import runs


# With a guide and without one: all read with the same transforms.
@runs.of("udean_window", "guided_rdn")
def test_niftis(bundle, tiny, trained, tmp_path):
    """In one batch, every damaged scan is listed with a reason or done, and the sound ones are done."""
    scans = tmp_path / "scans"
    first = tiny.save_lr(scans, "0", runs.phantom(0), runs.OBLIQUE)
    damaged = malformed.niftis(first, tmp_path)
    names = {}
    for n, path in enumerate(damaged, start=1):
        scan = tiny.save_lr(scans, n, runs.phantom(0), runs.OBLIQUE) if tiny.guided else first
        names[path.rename(scan.with_name(f"{tiny.case(n)}.nii.gz")).name] = path.name
    tiny.save_lr(scans, 9999, runs.phantom(1), runs.OBLIQUE)
    with warnings.catch_warnings(), malformed.deadline(120), pytest.raises(Exception) as caught:
        warnings.simplefilter("ignore")
        runs.run(bundle, runs.CASES, trained, dataset_dir=str(scans), output_dir=str(tmp_path / "sr"))
    message = str(runs.first_cause(caught.value))
    failures = dict(re.findall(r"^  \S*?([^/\s]+\.nii\.gz): (.*)$", message, re.M))
    assert f"{len(failures)} of {len(names) + 2} cases failed, the others are done" in message, message
    results = {path.name.replace("_sr.nii.gz", ".nii.gz"): path for path in (tmp_path / "sr").glob("*.nii.gz")}
    assert {first.name, f"{tiny.case(9999)}.nii.gz"} <= results.keys()
    assert not results.keys() & failures.keys() and results.keys() | failures.keys() == names.keys() | {
        first.name, f"{tiny.case(9999)}.nii.gz",
    }  # fmt: skip
    assert len(failures) > len(names) / 2
    for name, reason in failures.items():
        assert malformed.unclear(f"{name}: {reason}", name) is None, (names[name], reason)
    for name, path in results.items():
        image = nib.load(path)
        assert np.isfinite(image.get_fdata()).all() and np.isfinite(image.affine).all(), names.get(name)
        if not tiny.guided:
            assert np.prod(image.shape) == np.prod(open_image(scans / name).shape) * np.prod(tiny.degradation.factors)
    assert not list((tmp_path / "sr").glob(".*"))


def test_sidecars(tmp_path):
    """Whatever is in one, the scan is read and described; where it cannot be read or used, a warning names it."""
    path = tmp_path / "scan.nii"
    runs.save(path, runs.phantom(0, (8, 8, 8)), np.diag([1, 1, 4.0, 1]))
    warned = 0
    for how in malformed.sidecars(tmp_path / "scan.json"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scan = LoadScand("image")({"image": str(path)})["image"]
            width = read_profile_width(scan[None])
        texts = [str(warning.message) for warning in caught]
        assert all(malformed.unclear(text, "scan.json") is None for text in texts), (how, texts)
        assert width is None or 0 < width <= 250, how
        assert isinstance(explain_unsuitable_file(path), str | None), how
        json.dumps(read_source_metadata(path), allow_nan=False)
        warned += bool(texts)
    assert warned > malformed.COUNT / 5


@runs.of("srcnn")
def test_checkpoints(bundle, tiny, trained, tmp_path):
    """Damaged weights are refused by name before anything is written, and code in them is not run."""
    tiny.save_lr(tmp_path / "scans", "a", runs.phantom(0))
    valid = torch.load(trained / "models" / "model.pt", weights_only=True)
    for how, path in malformed.checkpoints(trained / "models" / "model.pt", tmp_path):
        if how.startswith("bytes"):  # which may not have hit anything that matters
            with contextlib.suppress(Exception):
                if runs.same(torch.load(path, weights_only=True), valid):
                    continue
        inference = {"dataset_dir": str(tmp_path / "scans"), "checkpoint": str(path)}
        with malformed.deadline(60):
            message = runs.fails(bundle, ["inference"], tmp_path / "run", **inference)
        reason = malformed.unclear(message, path.name)
        assert reason is None, (how, reason)
        assert "weights_only" not in message, message  # torch's advice to switch the protection off
    assert not (tmp_path / "code_was_run").exists()
