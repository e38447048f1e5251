"""``python -m common demo``: super-resolve a simulated thick-slice head, and draw the result beside the truth."""

from __future__ import annotations

import time
from pathlib import Path

_THICKNESS, _SPACING = 4, 1.2  # voxels of HR a slice, and HR's voxels in mm; a head that takes seconds


def demo(output_dir: str = "mri_sr_demo", device: str | None = None) -> None:
    """Simulate a T1w head with thick slices, super-resolve it as any other scan, and compare it with the known HR.

    It shows that an installation works, and what a result looks like. The head is simulated, so its gain says little
    about real scans. Files of an earlier demo are replaced. The folder gets ``demo_scan.nii.gz``, ``demo_hr.nii.gz``,
    ``demo_scan_sr.nii.gz`` and the picture ``demo.png``.

    Args:
        output_dir: folder to write to; made if missing.
        device: where the network runs, for example cpu; default the first GPU, if there is one.

    Raises:
        PermissionError, NotADirectoryError: the folder is not writable.
        ModuleNotFoundError: the extra ``demo``, which the simulated head needs, is not installed.
        RunsFailedError: the scan could not be super-resolved.
    """
    # Modules that compute are imported only when needed, so that --help is quick.
    from ...io.writing import check_writable

    start, folder = time.perf_counter(), Path(output_dir).expanduser()
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scan, hr, picture = (folder / name for name in ("demo_scan.nii.gz", "demo_hr.nii.gz", "demo.png"))
    if scan.exists():
        print(f"the demo in {folder} is replaced")
    print(f"1 of 3: simulating a head with slices of {_THICKNESS * _SPACING:g} mm", flush=True)
    _simulate(scan, hr)
    print("2 of 3: super-resolving it, to be quick without training on the scan", flush=True)
    from .super_resolve import super_resolve

    super_resolve(str(scan), output_dir=str(folder), device=device, adapt_iterations=0)
    print("3 of 3: comparing cubic interpolation and the result (SR) with the known HR", flush=True)
    from .compare import compare

    result = scan.with_name("demo_scan_sr.nii.gz")
    compare(str(scan), str(result), str(picture), hr=str(hr), overwrite=True)
    print(
        f"Done in {time.perf_counter() - start:.0f} s. The head is simulated: real scans gain less or more.\n"
        f"Look at {picture}. Your own scan: mri-sr SCAN.nii.gz, or mri-sr DICOM_FOLDER; mri-sr --help has the options."
    )


def _simulate(scan: Path, hr: Path) -> None:
    """Write a simulated scan and its HR volume, which is cropped to whole slices."""
    from ..startup import import_monai

    import_monai()
    import contextlib
    import io
    import tempfile
    from typing import Any

    import nibabel as nib

    from ...degradations.profiles import GaussianProfile
    from ...io.read import read_volume
    from ..cohort import simulate_head
    from ..degraded import save_degraded

    with tempfile.TemporaryDirectory(prefix="demo-") as temporary:
        # Its output names the temporary folder.
        with contextlib.redirect_stdout(io.StringIO()):
            simulate_head(Path(temporary), ["t1w"], _SPACING)
        head: Any = nib.load(Path(temporary, "simulated_t1w.nii.gz"))
        nib.save(head.slicer[..., : head.shape[2] // _THICKNESS * _THICKNESS], hr)
    save_degraded(read_volume(hr), GaussianProfile((1, 1, _THICKNESS)), scan)
