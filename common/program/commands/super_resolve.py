"""``python -m common super-resolve``: super-resolve scans, each with the weights that suit it."""

from __future__ import annotations

import inspect
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

_RESULTS = "super_resolved"  # folder of results where none is named
_NO_RESULT = (".png", ".jpg", ".html", ".json", ".dcm", ".gz")  # files that someone may want instead


def super_resolve(
    *paths: str,
    output_dir: str | None = None,
    together: bool | str = False,
    exam: bool | str = False,
    guide: str | None = None,
    label: str | None = None,
    subject: str | None = None,
    bundle: str | None = None,
    scale: Sequence[int] | int | str | None = None,
    acquired_matrix: Sequence[int] | str | None = None,
    skip_existing: bool = False,
    shard: str | None = None,
    bids: bool = False,
    participant_label: tuple[str, ...] | None = None,
    session_label: tuple[str, ...] | None = None,
    skip_bids_validation: bool = False,
    report: bool = False,
    uncertainty: bool = False,
    keep_paths: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    device: str | None = None,
    slice_axis: Sequence[str] | str | None = None,
    **override,
) -> None:
    """Super-resolve scans in files and DICOM series, each with the weights that suit its voxel sizes.

    The weights are chosen by voxel sizes. If several fit, those that make the voxels most nearly cubic are used. The
    choice is printed. If none fit, the nearest weights are used with a notice, up to a limit. A scan beyond this
    limit fails, and the message says what would do. Each result is <name>_sr.nii.gz. A DICOM series also gets a
    derived series in <name>_dicom. A 4-D scan is done volume by volume, and its result has all volumes. Under torchrun
    each process takes its share of the scans.

    --spacing 0.8 makes cubes of 0.8 mm over the scan's field of view. --grid_file FILE puts the result on the grid of a
    file. The nearest weights that are as fine make the result, which is then resampled and made to agree with the scan.

    --together combines several thick stacks of one exam into one volume. Its voxels are cubic. Its field of view is
    that of the stack that agrees best with the others, or with a guide or --region that of the first. A stack that does
    not fit is left out with a warning, and done alone if the output is a folder. With --region MASK only what lies in a
    mask on the first stack is registered and compared, for example a fetal brain.

    --exam makes thin volumes of several contrasts at once, such as T1w, T2w and FLAIR: one result a contrast, all on
    one grid of cubes. Each agrees with its own stacks. They share edges, never grey values.

    Every file that looks like a scan is super-resolved, or listed with its reason. In a folder, or of several that are
    named, images that are no magnitude MR images (masks, label maps, phase, maps, PET, CT) are skipped with a line.
    BIDS suffix, header, sidecar JSON and voxels decide, no other words of a name. One that is named alone is
    refused. The exit code is 0 when every scan is done, whatever was skipped, else 1.

    Args:
        paths: scans (NIfTI, .mgz, .hdr and .img, AFNI, NRRD, MetaImage), DICOM files of a series, or folders of these,
            with their subfolders. The last of several is the output, if it is a folder or does not exist. With
            --together or --exam all are scans.
        output_dir: folder of the results, or for a single scan the file of its result, .nii.gz or .nii. Default: the
            folder super_resolved next to the scans, or in the folder that holds all of them.
        together: whether the scans are stacks of one contrast. auto finds the exams in a folder, by DICOM study, or by
            subject and session in the names, and does each as --exam does. Other scans are super-resolved alone.
            Scans of several people or visits are refused, by headers, sidecar JSON and names; "visits" allows visits.
        exam: whether the scans are of one exam, or visits for several of one person; those of a single folder are
            grouped as by --together auto. Contrasts, and scans with and without contrast agent, are told apart by
            names and headers, and stacks of one contrast are combined.
        guide: a finer scan of another contrast of the same person: its file, the folder of its DICOM series, or a
            pattern, such as ``"**/*_t1w.nii.gz"``, for the guides of many scans, which are paired by subject. With
            --together it may be any scan of another contrast, and one stack is enough; only its edges are used.
        label: a label map in the scan's space, on any grid: its file, or a pattern, such as ``"**/*_dseg.nii.gz"``, for
            those of many scans, which are paired by subject. It is written on the result's grid, as
            <name>_sr_label.nii.gz. Each voxel gets the most probable label by linear interpolation.
        subject: pattern of the part of a path that names the subject; default as in BIDS, sub-<label>.
        bundle: name or folder of the only bundle to use, also for scans unlike its training data. zssr, smore and
            eclare learn from the scan itself and need no weights. One for exams, such as joint_tv, does what --exam
            does.
        scale: for example 2x2x1, to use only weights of this scale, also for scans unlike their training data. 2 is
            any scale whose largest factor is 2.
        acquired_matrix: for scans that the scanner interpolated (zero-filled), the acquired matrix, which is restored
            first: "header" as each header says it, or "[256,205,44]", voxels along the axes of the file.
        skip_existing: whether to skip scans whose results are complete, and made of the same inputs by these weights.
        shard: "3/16" for the third of 16 parts of the scans, for array jobs.
        bids: whether to name results as BIDS derivatives. Of several scans, those that are not anatomical by their
            BIDS names, such as functional images, are skipped with a line.
        participant_label: of a BIDS dataset, those to do, such as 01 02. Write BIDS_DIR OUTPUT participant before it,
            as for any BIDS App; this implies --bids.
        session_label: likewise, their sessions.
        skip_bids_validation: of BIDS Apps; it changes nothing, because nothing is validated.
        report: whether to write an HTML page for each result, and what was added to the scan, <name>_added.nii.gz. The
            page of an exam shows the residual of every slice.
        uncertainty: whether to write <name>_interval.nii.gz, the half width of each voxel's 90 % interval, for weights
            whose error was measured on people.
        keep_paths: whether the JSON of a result has whole paths, instead of names of files. Folders may be named like
            patients. log.jsonl always has paths, as they were given.
        dry_run: whether only to print what would be done with each scan, and its warnings; nothing is written.
        quiet: whether to print only warnings, failures and the number of scans at the end.
        device: where the networks run, for example cpu or cuda:1; default the first GPU, if there is one.
        slice_axis: the axis across the slices, LR, AP or SI, for scans whose header and voxel sizes do not show it. A
            list such as "[SI,auto]" has one for each scan that is named, in their order.
        override: keys of a bundle's inference.json, for example --amp False. A bundle
            without this key ignores it, with a line. For --checkpoint FILE.pt the overlay FILE.json is used too.
    """
    # Modules that compute are imported only when needed, so that --help and a refusal are quick.
    from ..bundles import refuse_unknown_options

    options = [*inspect.signature(super_resolve).parameters]
    refuse_unknown_options(bundle, override, options)
    visits = "visits" in (together, exam)
    together, exam = together == "visits" or together, exam == "visits" or exam
    if exam not in (True, False):
        raise ValueError(f"--exam is {exam!r}, expected nothing after it, or visits; name the scans before it.")
    if together not in (True, False, "auto"):
        raise ValueError(
            f"--together is {together!r}, expected nothing after it, or auto or visits; name the scans before it."
        )
    if not paths:
        raise ValueError("no scan is named; give scans, DICOM files of series, or folders. --help lists the options.")
    if not any(os.path.lexists(os.path.expanduser(path)) for path in paths):
        raise FileNotFoundError(f"{paths[0]}: there is no such file or folder.")
    from ..startup import import_monai

    import_monai()
    from ...io.files import get_sidecar_path
    from ...io.naming import get_output_folder
    from ...io.writing import check_writable
    from ...runtime.distributed import get_rank, print_once
    from ...runtime.errors import RunsFailedError
    from ...runtime.progress import silence
    from ...start import check_device
    from ..bids import read_app_words
    from ..cases.case import Case
    from ..cases.evaluator import describe_warnings
    from ..cases.results import get_log_path, log_case
    from ..cases.run import check_disk_space, list_rejected_stacks, run_cases
    from ..cases.scan_kinds import collect_skipped, looks_like_scan
    from ..cases.sharding import select_pending_cases
    from ..dicom.recognition import enter_dicomdir
    from ..exams.choose import choose_weights, find_candidates, reads_exams
    from ..exams.discover import (
        check_slice_axes,
        convert_series,
        discover_cases,
        find_common_folder,
        set_acquired_matrix,
        split_output,
    )
    from ..processes import connect_processes, gather_items

    # MONAI's messages about its set-up, and about a decoder for CUDA, say nothing about a scan.
    for module in ("monai.bundle.workflows", "monai.data.nvimgcodec_pydicom_plugin"):
        logging.getLogger(module).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    for_exams = reads_exams(bundle)
    given_options: dict[str, object] = {
        "scale": scale,
        "acquired_matrix": acquired_matrix,
        "bundle": None if for_exams else bundle,
    }
    given_options |= {"together": together or None, "guide": guide} if exam else {}
    option = "--exam" if exam else "--together"
    if (exam or together) and (names := [f"--{name}" for name, value in given_options.items() if value is not None]):
        raise ValueError(
            f"{option} goes without {' and '.join(names)}: the bundle stacks does it, for voxels of any size."
        )
    several = exam or together is True
    exam = exam or (for_exams and not together)
    overlays = ["report"] * bool(report) + ["interval"] * bool(uncertainty)
    if device is not None:
        check_device(device)
        override["device"] = device
    if slice_axis is not None:
        slice_axis = check_slice_axes(slice_axis)
    if override.get("register") not in (None, True, False, "auto"):
        raise ValueError(f"--register is {override['register']!r}, expected True, False or auto.")
    if isinstance(slice_axis, str) and not (exam or together):  # a key of each bundle
        override["slice_axis"], slice_axis = slice_axis, None
    known, stacks = find_candidates(bundle, scale, override, "auto" if exam else together, options)
    fewest = (stacks and stacks.fewest_stacks) or 2
    folders: Sequence[Path] = ()
    if app := read_app_words(paths, output_dir, participant_label, session_label):
        dataset, output_dir, folders = app
        paths, bids = (dataset,), True
    roots = [enter_dicomdir(Path(path).expanduser()) for path in paths]
    for root in roots if several else ():
        if not root.exists() and not root.is_symlink():
            raise FileNotFoundError(
                f"{root}: there is no such file or folder. With {option} the folder of the results is --output_dir."
            )
    output = Path(output_dir).expanduser() if output_dir else None
    if output is None and not several:
        roots, output = split_output(roots)
    output = output or find_common_folder(roots) / _RESULTS
    is_file = get_output_folder(output) != output
    names_file = looks_like_scan(output) or output.suffix.lower() in _NO_RESULT
    if names_file and not is_file and not output.is_dir():
        raise ValueError(f"{output}: expected a file .nii.gz or .nii for the result of a scan, or a folder.")
    started = time.perf_counter()
    with silence(quiet), tempfile.TemporaryDirectory(prefix="super_resolve-") as temporary:
        with collect_skipped() as passed_over:
            every = discover_cases(
                roots, Path(temporary), guide, subject, label, together, exam, visits, fewest, slice_axis, bids, folders
            )
        if is_file and len(every) > 1:
            raise ValueError(f"{output}: found {len(every)} scans, expected one for a file; name a folder.")
        for case in every:
            if for_exams and "stacks" not in case and case.problem is None:
                case.problem = (
                    f"{case.source}: --bundle {bundle} makes one volume of several scans of an exam, found one; name "
                    "them all, with --together or --exam."
                )
        set_acquired_matrix(every, acquired_matrix)
        asked = bundle is not None or scale is not None or "checkpoint" in override
        choose_weights(every, known, stacks, guide is not None, asked)
        cases = select_pending_cases(every, output, skip_existing, shard, bids, convert_series)
        skipped = [case.result for case in every if case.result]
        lacking = [path for path in skipped if report and not get_sidecar_path(path).with_suffix(".html").exists()]
        if lacking:
            print_once(
                f"{len(lacking)} of the results that are there have no page, such as {lacking[0]}; for --report, leave "
                "--skip_existing out."
            )
        check_disk_space(cases, output)
        if not dry_run:
            check_writable(get_output_folder(output))
        if not dry_run and any(case.problem is None for case in cases):
            print_once(f"results go to {output}")
        try:
            run_cases(cases, output, [*override], bids, shard, overlays, keep_paths, dry_run)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("; the same command with --skip_existing goes on with what is left") from None
        if left_out := [] if is_file else list_rejected_stacks(cases):
            choose_weights(left_out, known, None, False, asked and together is not True)
            left_out = select_pending_cases(left_out, output, skip_existing, None, bids, divided=True)
            check_disk_space(left_out, output)
            run_cases(left_out, output, [*override], bids, shard, overlays, keep_paths)
            cases += left_out
    lines = describe_warnings(cases, most=None) if dry_run else describe_warnings(cases)
    if lines := [line for line in lines if not (quiet and line.startswith("notice: "))]:
        print("\n".join(lines), flush=True)
    connect_processes()
    ended = gather_items([(case.name, case.source, case.failure if case.problem else None) for case in cases])
    failures = [failure for *_, failure in ended if failure]
    counts = {"done": len(ended) - len(failures), "skipped": len(gather_items(skipped)), "failed": len(failures)}
    log = get_log_path(output, shard)
    if get_rank()[0] == 0 and not dry_run:
        for name, reason in passed_over.items():
            log_case(log, Case({"image": name, "name": Path(name).name}), reason)
    print_once(_summarise(counts, len(passed_over), dry_run, time.perf_counter() - started, output, log))
    if failures:
        if get_rank()[0] > 0:
            raise SystemExit(1)  # the first process says what failed
        cannot = "could not be done" if dry_run else "failed" + ", the others are done" * (counts["done"] > 0)
        raise RunsFailedError("\n  ".join([f"{len(failures)} of {len(ended)} scans {cannot}:", *failures]))


def _summarise(
    counts: Mapping[str, int], passed_over: int, dry_run: bool, seconds: float, output: Path, log: Path | None
) -> str:
    """The last line: how many scans ended in which way, what is no scan, and where the results are."""
    from ...runtime.progress import format_duration

    words = {"done": "to do", "failed": "cannot be done"} if dry_run else {}
    ends = ", ".join(f"{counts[end]} {words.get(end, end)}" for end in ("done", "skipped", "failed") if counts[end])
    number = sum(counts.values())
    text = f"{number} scan{'s' * (number != 1)}: {ends or 'nothing to do'}"
    others = f"; {passed_over} file{'s' * (passed_over > 1)} passed over" * bool(passed_over)
    if dry_run:
        return text + others + f"; results would go to {output}" * bool(counts["done"])
    text += (
        f", in {format_duration(seconds)}"
        + others
        + f"; results in {output}" * bool(counts["done"] + counts["skipped"])
    )
    return text + (f", log in {log}" if log and os.access(log, os.W_OK) else "")
