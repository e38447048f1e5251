"""``python -m common degrade``: make LR of HR scans as a scanner would, to test and to train methods."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

_RESULTS = "degraded"  # folder of LR where none is named


def degrade(
    *paths: str,
    output_dir: str | None = None,
    scale: Sequence[int] | str,
    slice_thickness: float | None = None,
    partial_fourier: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
    slice_axis: str = "auto",
) -> None:
    """Make LR of HR scans as a scanner would: k-space truncation, slice profile and gap, partial Fourier, and noise.

    Each LR scan is <name>_lr.nii.gz, at its place in space. Super-resolved by the same --scale, if weights have it, it
    lies on the grid of HR. HR is first cropped to whole LR voxels, to the right, in front and above. LR has the data
    type of HR.

    With the scale 1x1x4, slices have a Gaussian profile. With 2x2x2 or 2x2x4, k-space is truncated along all axes, as
    in a 3-D scan. With --slice_thickness it is truncated in plane, and slices have a profile.

    The JSON next to LR has the slice thickness, and the operator under Degradation. MONAI's ConfigParser builds it. It
    acts on the voxels HRVoxels of HR, as stored, in float64. LR is the magnitude.

    Args:
        paths: HR scans, DICOM series, or folders, as for mri-sr. The last of several is the output, if it is a folder
            or does not exist.
        output_dir: folder of LR, or for a single scan its file, .nii.gz or .nii. Default: the folder degraded next to
            the scans, or in the folder that holds all of them.
        scale: HR voxels per LR voxel, whole numbers, such as 2x2x1; the last is across the slices.
        slice_thickness: full width at half maximum of the slice profile in mm, 0.5 to 2 distances of the slices. What
            is left of the distance is a gap. Default: slices that touch.
        partial_fourier: acquired fraction of the lines along the second axis in plane, above 0.5, at most 1.
        noise: standard deviation in each receiver channel, as a share of HR's 99.9th percentile, such as 0.02.
        seed: of the noise, which also depends on the volume.
        slice_axis: anatomical axis across the slices, LR, AP or SI; auto takes it from the voxel sizes, or is SI if
            these do not show it.

    Raises:
        ValueError: when an option has no possible value, or there is no scan.
        RunsFailedError: when scans could not be degraded.
    """
    # Modules that compute are imported only when needed, so that --help is quick.
    from ..startup import import_monai

    import_monai()
    from ...io.formats import get_extension
    from ...io.naming import get_output_folder
    from ...io.writing import check_writable
    from ...physics.scale import get_volume_scale
    from ...runtime.errors import RunsFailedError
    from ...runtime.values import check_whole_numbers
    from ..degraded import degrade_scan, is_degraded
    from ..exams.choose import parse_scale
    from ..exams.discover import convert_series, discover_cases, find_common_folder, split_output
    from ..naming import make_result_path

    factors = get_volume_scale(parse_scale(scale))
    check_whole_numbers(0, seed=seed)
    if type(noise) not in (int, float) or not 0 <= noise < 1:
        raise ValueError(f"--noise is {noise!r}, expected a share of the brightness of HR below 1, such as 0.02.")
    if type(partial_fourier) not in (int, float) or not 0.5 < partial_fourier <= 1:
        raise ValueError(f"--partial_fourier is {partial_fourier!r}, expected more than 0.5, and at most 1.")
    if slice_thickness is not None and (type(slice_thickness) not in (int, float) or factors[2] == 1):
        raise ValueError(
            f"--slice_thickness is {slice_thickness!r} with --scale {scale}, expected mm, and a scale that makes "
            "slices thicker, such as 1x1x4."
        )
    if slice_axis not in ("auto", "LR", "AP", "SI"):
        raise ValueError(f"--slice_axis is {slice_axis!r}, expected auto, LR, AP or SI.")
    if not paths:
        raise ValueError("no scan is named; give HR scans, DICOM files of series, or folders.")
    roots, output = [Path(path).expanduser() for path in paths], Path(output_dir).expanduser() if output_dir else None
    if output is None:
        roots, output = split_output(roots, is_degraded)
    output = output or find_common_folder(roots) / _RESULTS
    is_file = get_output_folder(output) != output
    if get_extension(output) and not is_file and not output.is_dir():
        raise ValueError(f"{output}: expected a file .nii.gz or .nii for LR of a scan, or a folder.")
    check_writable(get_output_folder(output))
    with tempfile.TemporaryDirectory(prefix="degrade-") as temporary:
        every = discover_cases(roots, Path(temporary))
        # Of a folder, those that this command has made are no HR.
        cases = [case for case in every if len(every) == 1 or not is_degraded(case["image"])]
        if is_file and len(cases) != 1:
            raise ValueError(f"{output}: found {len(cases)} scans, expected one for a file; name a folder.")
        for case in cases:
            if case.problem is None:
                convert_series(case)
            if case.problem is not None:
                continue
            with case.catch_problem(), case.files.hold_back():
                path = output if is_file else make_result_path(output, case.name, "lr")
                if os.path.realpath(path) == os.path.realpath(case["image"]):
                    raise ValueError(f"{path}: that would be written over the scan; name another output.")
                if path.exists() and not is_degraded(path):
                    raise ValueError(f"{path} is there, and degrade did not make it; remove it or name another output.")
                image, name = case["image"], case.name_files()[case["image"]]
                made = degrade_scan(
                    image, path, factors, slice_thickness, partial_fourier, noise, seed, slice_axis, name
                )
                case.move_files()
                print(f"{case.name} -> {path}, {made}", flush=True)
    if failures := [case.failure for case in cases if case.problem]:
        others = ", the others are done" * (len(failures) < len(cases))
        raise RunsFailedError("\n  ".join([f"{len(failures)} of {len(cases)} scans failed{others}:", *failures]))
