"""``python -m tests.clients.make_inputs FOLDER``: bundles like no other, tiny, unpacked from their exports' zips, with
random weights; and in FOLDER/scans a thick and an enhanced MR series, each with a guide, as DICOM and by dcm2niix."""

import shutil
import sys
import tempfile
from pathlib import Path

from pydicom.uid import generate_uid

from common.program.commands.export import export
from tests.bundles import runs

from . import dicom

SERIES = {
    "thick": {"angles": (4, 2, -3), "spacing": (0.9, 0.9, 5.0)},
    "enhanced": {"plane": "sagittal", "angles": (8, -5, 12), "slopes": (0.25,), "intercept": -20.0},
}


def make_bundle(name: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        runs.save_weights(name, Path(temporary) / "model.pt")
        export(str(runs.ROOT / "bundles" / name), temporary, str(Path(temporary) / "model.pt"))
        (zipped,) = Path(temporary).glob("*.zip")
        shutil.unpack_archive(zipped, folder)


def make_scan(name: str, folder: Path) -> None:
    """Write <name>/scan and <name>/guide, and sub-<name>_t2w.nii.gz and sub-<name>_t1w.nii.gz of them."""
    exam = {keyword: generate_uid(prefix=None) for keyword in ("StudyInstanceUID", "FrameOfReferenceUID")}
    scan = dicom.Series(**SERIES[name], attributes=exam)
    column, row, depth = scan.spacing
    finer = {"spacing": (column / 2, row / 2, depth), "shape": (64, 56, 10), "seed": 5}
    guide = dicom.Series(**{**SERIES[name], **finer}, attributes=exam)
    for kind, contrast, series in (("scan", "t2w", scan), ("guide", "t1w", guide)):
        images = series.images()
        if name == "enhanced":
            images = dicom.enhanced(images)
            images[0].remove_private_tags()  # dcm2niix believes those of Philips more than the standard ones
        dicom.save(images, folder / name / kind)
        dicom.read_by_dcm2niix(folder / name / kind, folder / f"sub-{name}_{contrast}.nii.gz")


def main(folder: str) -> None:
    for bundle in runs.FORMS:
        make_bundle(bundle, Path(folder))
    for name in SERIES:
        make_scan(name, Path(folder) / "scans")


if __name__ == "__main__":
    main(*sys.argv[1:])
