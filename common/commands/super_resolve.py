"""``python -m common super-resolve``: super-resolve scans, each with the weights that suit it."""

from __future__ import annotations

import inspect
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

_RESULTS = "super_resolved"  # folder of results where none is named


def super_resolve(
    *paths: str,
    output_dir: str | None = None,
    together: bool | str = False,
    exam: bool = False,
    guide: str | None = None,
    label: str | None = None,
    subject: str | None = None,
    bundle: str | None = None,
    scale: Sequence[int] | None = None,
    acquired_matrix: Sequence[int] | str | None = None,
    skip_existing: bool = False,
    shard: str | None = None,
    bids: bool = False,
    report: bool = False,
    keep_paths: bool = False,
    dry_run: bool = False,
    **override,
) -> None:
    """Super-resolve scans in files and DICOM series, each with the weights that suit its voxel sizes.

    The weights are chosen by voxel sizes. If several fit, those that make the voxels most nearly cubic are used. The
    choice is printed. If none fit, the nearest weights are used with a warning, up to a limit. A scan beyond this
    limit fails, and the message says what would do. Each result is <name>_sr.nii.gz. A DICOM series also gets a
    derived series in <name>_dicom. A 4-D scan is done volume by volume, and its result has all volumes. Under torchrun
    each process takes its share of the scans.

    --spacing 0.8 makes cubes of 0.8 mm over the scan's field of view. --grid_file FILE puts the result on the grid of a
    file. The nearest weights that are as fine make the result, which is then resampled and made to agree with the scan.

    --together combines several thick stacks of one exam into one volume. Its voxels are cubic. Its field of view is
    that of the stack that agrees best with the others, or with a guide or --region that of the first. A stack that does
    not fit is left out with a warning, and done alone. With --region MASK only what lies in a mask on the first stack
    is registered and compared, for example a fetal brain.

    --exam makes thin volumes of several contrasts at once, such as T1w, T2w and FLAIR: one result a contrast, all on
    one grid of cubes. Each agrees with its own stacks. They share edges, never grey values.

    Every file that looks like a scan is super-resolved, or listed with its reason. In a folder, images that are no
    magnitude MR images (masks, label maps, phase, maps, PET, CT) are skipped with a line. They are refused if they are
    named. The exit code is 0 when every scan is done, whatever was skipped, else 1.

    Args:
        paths: a scan (NIfTI, .mgz, .hdr and .img, AFNI, NRRD, MetaImage), a DICOM file of a series, or a folder of
            these, with its subfolders. The folder of the results may follow. With --together all paths are stacks.
        output_dir: default the folder super_resolved next to the file, or in the folder.
        together: whether the scans are stacks of one contrast. auto finds the exams in a folder, by DICOM study, or by
            subject and session in the names, and does each as --exam does. Other scans are super-resolved alone.
        exam: whether the scans are of one exam; those of a single folder are grouped as by --together auto. Contrasts
            are told apart by names and DICOM headers, and stacks of one contrast are combined.
        guide: a finer scan of another contrast of the same person: its file, or a pattern, such as
            ``"**/*_t1w.nii.gz"``, for the guides of many scans, which are paired by subject. With --together it may be
            any scan of another contrast, and one stack is enough; only its edges are used.
        label: a label map in the scan's space, on any grid: its file, or a pattern, such as ``"**/*_dseg.nii.gz"``, for
            those of many scans, which are paired by subject. It is written on the result's grid, as
            <name>_sr_label.nii.gz. Each voxel gets the most probable label by linear interpolation.
        subject: pattern of the part of a path that names the subject; default as in BIDS, sub-<label>.
        bundle: name or folder of the only bundle to use, also for scans unlike its training data. zssr and smore learn
            from the scan itself and need no weights.
        scale: for example "[2,2,1]", to use only weights of this scale, also for scans unlike their training data.
        acquired_matrix: for scans that the scanner interpolated (zero-filled), the acquired matrix, which is restored
            first: "header" as each header says it, or "[256,205,44]", voxels along the axes of the file.
        skip_existing: whether to skip scans whose results are complete, and made of the same inputs by these weights.
        shard: "3/16" for the third of 16 parts of the scans, for array jobs.
        bids: whether to name results as BIDS derivatives.
        report: whether to write an HTML page for each result, and what was added to the scan, <name>_added.nii.gz. The
            page of an exam shows the residual of every slice.
        keep_paths: whether the JSON of a result has whole paths, instead of names of files. Folders may be named like
            patients. log.jsonl always has whole paths.
        dry_run: whether only to print what would be done with each scan, and its warnings; nothing is written.
        override: keys of a bundle's inference.json, for example --slice_axis SI, --device cpu or --evaluator#amp True.
            A bundle without this key ignores it, with a line. For --checkpoint FILE.pt the overlay FILE.json is used
            too.

    Raises:
        FileNotFoundError: when there is no such path, or no scan in it.
        ValueError: when an option does not fit.
        RunsFailedError: when scans failed, or cannot be read; the others are done.
    """
    # Modules that compute are imported only when needed, so that --help is quick.
    from ..startup import import_monai

    import_monai()
    from ..cases.choose import STACKS, choose_weights, find_offers
    from ..cases.discover import convert_series, discover_cases, get_folder, set_acquired_matrix
    from ..cases.run import check_disk_space, list_left_out, run_cases
    from ..data.lists.sharding import select_cases
    from ..errors import RunsFailedError
    from ..io.files import check_writable
    from ..io.images import explain_missing_content
    from ..runtime.distributed import connect_processes, gather_items, get_rank, print_once

    # MONAI's messages about its set-up, and about a decoder for CUDA, say nothing about a scan.
    for module in ("monai.bundle.workflows", "monai.data.nvimgcodec_pydicom_plugin"):
        logging.getLogger(module).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    given_options: dict[str, object] = {
        "scale": scale,
        "acquired_matrix": acquired_matrix,
        "bundle": None if bundle == STACKS else bundle,
    }
    if exam not in (True, False):
        raise ValueError(f"--exam is {exam!r}, expected nothing after it; name the scans before it.")
    given_options |= {"together": together or None, "guide": guide} if exam else {}
    option = "--exam" if exam else "--together"
    if (exam or together) and (names := [f"--{name}" for name, value in given_options.items() if value is not None]):
        raise ValueError(
            f"{option} goes without {' and '.join(names)}: the bundle {STACKS} does it, for voxels of any size."
        )
    several = exam or together is True
    options = [*inspect.signature(super_resolve).parameters]
    known, stacks = find_offers(bundle, scale, override, "auto" if exam else together, options)
    if together not in (True, False, "auto"):
        raise ValueError(f"--together is {together!r}, expected nothing after it, or auto; name the scans before it.")
    if not paths:
        raise ValueError("no scan is named; give a scan, a DICOM file of a series, or a folder.")
    if not several and output_dir is None and len(paths) == 2:
        paths, output_dir = paths[:1], paths[1]  # type: ignore[misc]
    if len(paths) > 1 and not several:
        raise ValueError(
            f"found {len(paths)} scans ({', '.join(paths)}), expected one, or a folder; stacks of one exam are "
            "combined with --together, and contrasts of one exam done with --exam."
        )
    roots = [Path(path).expanduser() for path in paths]
    for path, root in zip(paths, roots, strict=True):
        if not root.exists():
            hint = f" With {option} the folder of the results is --output_dir." if several else ""
            raise FileNotFoundError(
                f"{path}: {explain_missing_content(root) or 'there is no such file or folder.'}{hint}"
            )
    output = Path(output_dir).expanduser() if output_dir else get_folder(roots[0]) / _RESULTS
    with tempfile.TemporaryDirectory(prefix="super_resolve-") as temporary:
        cases = discover_cases(roots, Path(temporary), guide, subject, label, together, exam)
        set_acquired_matrix(cases, acquired_matrix)
        asked = bundle is not None or scale is not None or "checkpoint" in override
        choose_weights(cases, known, stacks, guide is not None, asked)
        cases = select_cases(cases, output, skip_existing, shard, bids, convert_series)
        check_disk_space(cases, output)
        if not dry_run:
            check_writable(output)
        if not cases:
            print("no scans to do", flush=True)
        elif not dry_run:
            print_once(f"results go to {output}")
        run_cases(cases, output, [*override], bids, shard, report, keep_paths, dry_run)
        if left_out := list_left_out(cases):
            choose_weights(left_out, known, None, False, asked and together is not True)
            left_out = select_cases(left_out, output, skip_existing, None, bids, divided=True)
            check_disk_space(left_out, output)
            run_cases(left_out, output, [*override], bids, shard, report, keep_paths)
            cases += left_out
    connect_processes()
    every = gather_items([(case.source, case.failure if case.problem else None) for case in cases])
    if failures := [failure for _, failure in every if failure]:
        if get_rank()[0] > 0:
            raise SystemExit(1)  # the first process says what failed
        cannot = (
            "could not be done"
            if dry_run
            else "failed" + (", the others are done" if len(failures) < len(every) else "")
        )
        raise RunsFailedError("\n  ".join([f"{len(failures)} of {len(every)} scans {cannot}:", *failures]))
