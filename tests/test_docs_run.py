"""The bash blocks of each page run in order, as printed, in a copy of the repository. Blocks of ``sh`` do not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from . import reader
from .bundles import runs
from .clients import dicom
from .test_docs import FENCE, PAGES, ROOT

SAVED = re.compile(r"(?:Save this as|Write) `([\w/.]+)`[^\n]*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The reader's environment is there, and tests/reader.py makes each command short.
PRELUDE = """
set -euo pipefail
pip() { :; }
python3() { :; }
python() { command python -m tests.reader "$@"; }
torchrun() { python -m torch.distributed.run "$@"; }
mri-sr() { command python -c 'from common.__main__ import run_mri_sr; run_mri_sr()' "$@"; }
"""


def script(text: str) -> str:
    """The bash blocks of a page, but for files that the reader saves."""
    return "\n".join(code for kind, code in FENCE.findall(SAVED.sub("", text)) if kind == "bash")


def shorten(bundles: Path) -> None:
    """Let what learns from a scan learn for three iterations, and add an overlay of the tests' sizes, tiny.json."""
    for name, tiny in runs.TINY.items():
        (bundles / name / "configs" / "tiny.json").write_text(json.dumps({**tiny.network, **tiny.training}))
    for path in bundles.glob("*/*/*.json"):
        config = json.loads(path.read_text())
        short = {"iterations": 3, "adapt_iterations": 3, "ensemble": False}
        config.update({key: value for key, value in short.items() if isinstance(config.get(key), int) and config[key]})
        path.write_text(json.dumps(config))


def coarser(page: str) -> str:
    """How much coarser than HR the scans of a page are, along each axis."""
    known = {"guided_rdn": "221", "downsampling_gan": "221"}
    known |= dict.fromkeys(("ct_guided", "eclare", "smore", "tscn"), "114")
    return next((factors for bundle, factors in known.items() if page.startswith(f"bundles/{bundle}/")), "222")


def provide_scans(folder: Path, page: str) -> None:
    """Write what the pages call scans, in the folder where their commands run."""
    factors = tuple(map(int, coarser(page)))
    affine = reader.grid(factors)
    for path in ("SCANS/a.nii.gz", "LR/a.nii.gz", "FOLDER_OR_FILE/a.nii.gz", "scan.nii.gz"):
        reader.save_scan(folder / path, affine, factors)
    reader.save_labels(folder / "LABELS", 15)
    for prefix in ("", "FOLDER/sub-01/sub-01_"):
        for axis, stack in enumerate(("sag", "cor", "ax")):
            thick = tuple(4 if i == axis else 1 for i in range(3))
            reader.save_scan(folder / f"{prefix}{stack}.nii.gz", np.eye(4), thick)


def provide_more(folder: Path, page: str) -> None:
    """Write what only some pages need."""
    if "datalist --dataset_dir D" not in script(PAGES[page]):
        groups = ("source", "target", "validation", "test")
        hr = [reader.save_scan(folder / "D" / f"sub-{i}.nii.gz", reader.grid((2, 2, 2)), seed=i) for i in range(4)]
        runs.datalist(folder / "D", **{group: [{"hr": path}] for group, path in zip(groups, hr, strict=True)})
    if page == "common/docs/simulation.md":
        shutil.copy(ROOT / "bundles" / "ct_guided" / "models" / "model.pt", folder / "initial.pt")
    if page == "bundles/stacks/docs/README.md":
        for contrast in ("T1W", "T2W", "FLAIR"):
            reader.save_scan(folder / f"{contrast}.nii.gz", np.eye(4), (1, 1, 4))
    if page == "common/docs/daily_use.md":
        for label in ("01", "02"):
            scan = folder / "BIDS_DIR" / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz"
            reader.save_scan(scan, reader.grid((2, 2, 2)), (2, 2, 2))
        (folder / "BIDS_DIR" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
        for name in "ab":
            reader.save_scan(folder / f"{name}.nii.gz", reader.grid((2, 2, 2)), (2, 2, 2))
        for scan, guide in (("t2", "t1"), ("FOLDER/sub-01/sub-01_t2w", "FOLDER/sub-01/sub-01_t1w")):
            reader.save_scan(folder / f"{scan}.nii.gz", np.eye(4), (2, 2, 4))
            reader.save_guide(folder / f"{guide}.nii.gz", np.eye(4))
        scan = nib.load(folder / "scan.nii.gz")
        labels = nib.Nifti1Image((scan.get_fdata() > scan.get_fdata().mean()).astype(np.uint8), scan.affine)
        for name in ("labels", "labels_on_result"):
            nib.save(labels, folder / f"{name}.nii.gz")
        for path, n in (("DICOM_FOLDER", 1), ("OUT/NAME_dicom/UID", 2)):
            dicom.Series(spacing=(1 / n, 1 / n, 4.0), shape=(32 * n, 28 * n, 10)).save(folder / path)
    if page == "common/docs/serving.md":
        runs.save_weights("udean_window", folder / "W" / "models" / "model.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if script(text)])
def test_the_commands_run(name, tmp_path):
    for part in ("bundles", "common", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shorten(tmp_path / "bundles")
    for part in ("README.md", "pyproject.toml", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / part, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    provide_scans(tmp_path, name)
    provide_more(tmp_path, name)
    for file, content in SAVED.findall(PAGES[name]):
        (tmp_path / file).write_text(content)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-xc", PRELUDE + script(PAGES[name])],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COARSER": coarser(name)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
