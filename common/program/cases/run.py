"""Run cases through the workflows of their bundles, or say what would be done."""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigWorkflow

from ...data.description import describe_bundle
from ...inferers.duration import estimate_seconds
from ...io.files import read_sidecar
from ...io.images import open_image
from ...io.naming import get_output_folder
from ...io.read import check_header
from ...io.writing import open_part_folder
from ...runtime.errors import Notice, find_first_cause, get_first_line
from ...runtime.progress import format_estimate
from ...transforms.scan.load import check_volume
from .. import provenance
from ..exams.discover import convert_series
from ..exams.grouping import group_cases
from ..exams.ranking import format_spacing
from ..files import check_room
from ..naming import make_label_path, make_result_path, make_series_path
from .case import Case
from .evaluator import CasesFailedError
from .inputs import describe_file
from .results import get_log_path, log_case
from .volumes import join_results, split_volumes

_CHECKED = 16  # most scans of a group that are read before it is said what will be done; each is read again later
_MEASURED = 4  # most sizes of scans in a group whose time is measured
_DARK = 0.1  # of the brightest volume of a 4-D scan


def check_disk_space(cases: Sequence[Case], output: Path) -> None:
    """Give cases a problem if there is no room for their results.

    Args:
        cases: with their choices.
        output: folder of the results, or the file of the only one.
    """
    files = 0.0
    for case in cases:
        if case.problem is None:
            before, after = map(math.prod, case.choice.spacing)
            ratio = before / after
            series = case.series.get(case["image"])
            stored = [case["image"]] if series is None else series.files
            volumes = case.volumes
            voxels = math.prod(case.read_grid()[1]) * volumes
            if grid_file := case.choice.candidate.overrides.get("grid_file"):
                ratio = math.prod(open_image(grid_file).shape[:3]) * volumes / voxels
            # A compressed result has about as many bytes a voxel as a compressed scan. Half of it is certainly needed.
            size = min(sum(Path(file).stat().st_size for file in stored), voxels) * ratio / 2
            # The results of volumes are there until they are joined; a derived series has 2 bytes a voxel.
            files += size * (1 + (volumes > 1)) + (2 * voxels * ratio if series and volumes == 1 else 0)
            with case.catch_problem():
                check_room(output, size, files)


def run_cases(
    cases: Sequence[Case],
    output: Path,
    options: Sequence[str] = (),
    bids: bool = False,
    shard: str | None = None,
    overlays: Sequence[str] = (),
    keep_paths: bool = False,
    dry_run: bool = False,
) -> None:
    """Super-resolve cases, those with the same weights together. If one fails, the reason becomes its problem.

    Args:
        cases: with their choices.
        output: folder of the results, or the file of the only one.
        options: names of the overrides that the user gave; it is printed which of them a bundle ignores.
        bids: whether results are named as BIDS derivatives.
        shard: the share of the scans that these are, such as "3/16", for the name of the log.
        overlays: names of overlays to lay over each bundle: "report" for HTML pages, "interval" for error bars.
        keep_paths: whether the JSON of a result has whole paths.
        dry_run: whether only to load the cases and print what would be done.
    """
    settings = {"overlays": overlays, "shard": shard, "keep_paths": keep_paths}
    before = 0
    for group in group_cases([case for case in cases if case.problem is None], _describe_run):
        for case in group:
            convert_series(case)
            if case.problem is None:
                case.check_files(whole=len(group) <= _CHECKED and not dry_run)  # a preview loads them
        ready = [case for case in group if case.problem is None]
        if not ready:
            continue
        volumes = ready[0].volumes > 1
        lines = []
        if dry_run:
            lines = (_preview_4d_scan if volumes else _preview_group)(ready, output, bids, overlays)
            ready = [case for case in ready if case.problem is None]
        if ready:
            _print_choices(ready, [*options, *["uncertainty"] * ("interval" in overlays)])
        print("".join(f"{line}\n" for line in lines), end="", flush=True)
        if not dry_run:
            left = sum(case.volumes for case in cases if case.problem is None and not case.started)
            counted = before, before + left
            (_run_4d_scan if volumes else _run_group)(ready, output, bids, counted, **settings)
            before += sum(case.volumes for case in ready)
    for case in cases:
        if case.problem is not None and not case.started and not dry_run:
            log_case(get_log_path(output, shard), case)  # no workflow has done so


def list_rejected_stacks(exams: Sequence[Case]) -> list[Case]:
    """Cases of the stacks that were left out of exams because they do not fit, each with the reason as a warning.

    Args:
        exams: cases that were run.
    """
    left_out = []
    for exam in exams:
        record = read_sidecar(exam.result)[0]["SuperResolution"] if exam.result and exam.parts else {}
        short_names = exam.name_files()
        names = Counter([exam.name, *(part.name for part in exam.parts)])
        for i, part in enumerate(exam.parts, 1):
            if reason := record.get("Adapted", {}).get(short_names[part["image"]], {}).get("LeftOut"):
                entry = {key: value for key, value in part.items() if key != "guide"}  # one of the exam's reference
                entry["name"] = f"{part.name}_stack{i}" if names[part.name] > 1 else part.name
                text = f"left out of {exam.name}, so done alone: {reason}"
                texts: dict[str, Any] = {"warnings": [*part.warnings, text], "notices": [*part.notices]}
                left_out.append(replace(part, entry=entry, inputs=exam.inputs, **texts))
    return left_out


def _describe_run(case: Case) -> tuple:
    """What the cases of a run share: their weights. Each DICOM series, exam and 4-D scan has a run of its own."""
    candidate = case.choice.candidate
    alone = case.name if case.series or case.volumes > 1 else None
    if "contrasts" in case:  # whose contrasts are done at once
        alone = " ".join(sorted(case.images))
    return candidate.bundle, candidate.checkpoint, candidate.scale, case.choice.slice_axis, alone


def _print_choices(group: Sequence[Case], options: Sequence[str]) -> None:
    """Print which weights were chosen for which scans, one line for each spacing, and options that they ignore."""
    for cases in group_cases(group, lambda case: tuple(map(format_spacing, case.choice.spacing))):
        before, after = map(format_spacing, cases[0].choice.spacing)
        names = ", ".join(case.name for case in cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")
        choice = cases[0].choice
        title = choice.candidate.name
        if "stacks" in cases[0]:
            number = len(cases[0].images) - ("guide" in cases[0])
            stacks = f"{number} stack{'s' * (number > 1)}{' each' * (len(cases) > 1)}"
            if "contrasts" in cases[0]:
                stacks = f"{number} stacks of {1 + len(cases[0]['contrasts'])} contrasts"
            title, names = choice.candidate.bundle.name, f"{names} ({stacks})"
        print(f"{title}, {before} to {after}: {names}", flush=True)
    candidate = group[0].choice.candidate
    known = {*candidate.overrides, *["uncertainty"] * candidate.has_interval}
    if ignored := [f"--{option}" for option in options if option not in known]:
        print(f"  {candidate.bundle.name} does not know {', '.join(ignored)}, which changes nothing here", flush=True)
    if candidate.is_self_trained:
        print(
            f"  {candidate.bundle.name} learns from each scan first, which takes minutes; it says how many soon after "
            "it has begun",
            flush=True,
        )


def _initialise_workflow(cases: list[Case], output: Path, overlays: Sequence[str] = (), **settings: Any) -> Any:
    """Initialise the workflow of the cases' bundle, and return it with its evaluator."""
    candidate, axis = cases[0].choice.candidate, cases[0].choice.slice_axis
    overlays = [name for name in overlays if name != "interval" or candidate.has_interval]
    overlays += ["labels"] * any("label_map" in case for case in cases)
    if axis != candidate.slice_axis:
        settings["slice_axis"] = axis
    workflow: ConfigWorkflow = candidate.make_workflow(cases, overlays, output_dir=output, **settings)
    workflow.initialize()
    evaluator = workflow.parser.get_parsed_content("evaluator")
    evaluator.is_part = True
    return workflow, evaluator


def _run_group(cases: list[Case], output: Path, bids: bool, counted: tuple[int, int], **settings: Any) -> None:
    """Super-resolve cases, and write the derived series of DICOM; ``counted`` are those before, and all."""
    try:
        workflow, evaluator = _initialise_workflow(cases, output, bids=bids, **settings)
        evaluator.before, evaluator.total = counted
        workflow.run()
        workflow.finalize()
    except Exception as error:
        if not isinstance(find_first_cause(error), CasesFailedError):
            for case in cases:
                case.problem = get_first_line(error)
    for case in cases:
        if case["image"] in case.series and case.problem is None:
            with case.catch_problem():
                _write_derived_series(case, workflow.parser["_meta_"], evaluator.network, output, bids)
            if case.problem is not None:
                log_case(get_log_path(output, settings["shard"]), case)


def _write_derived_series(case: Case, meta: dict[str, Any], network: Any, output: Path, bids: bool) -> None:
    from ..dicom.derived import write_derived_series

    # A method that learned from the scan itself has no file of weights.
    digest = getattr(network, "origin", {}).get("file_sha256", "unknown")
    bundle = {**meta, **describe_bundle(case.choice.candidate.bundle), "sha256": digest}
    result = make_result_path(output, case.name, bids=bids)
    series, *others = (case.series[file] for file in dict.fromkeys(case.images) if file in case.series)
    folder = write_derived_series(series, result, make_series_path(output, case.name), bundle, others)
    print(f"{case.name} -> {folder}", flush=True)


def _preview_group(cases: list[Case], output: Path, bids: bool, overlays: Sequence[str]) -> list[str]:
    """Load cases and check them as their bundle's workflow does, and return lines on what would be done."""
    lines, seconds, measured = dict[str, None](), np.zeros(2), dict[int, Any]()
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            _, evaluator = _initialise_workflow(cases, Path(nowhere), overlays)
        except Exception as error:
            for case in cases:
                case.problem = get_first_line(error)
            return []
        batches = iter(evaluator.data_loader)
        for case in cases:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                batch = next(batches)
            if case.problem is not None:
                continue
            size, is_first = batch["image"].numel(), not measured
            if is_first or ("contrasts" not in case and size not in measured and len(measured) < _MEASURED):
                with case.catch_problem():
                    measured[size] = _estimate_seconds(evaluator, batch)
                if case.problem is not None:
                    continue
            if is_first or "contrasts" not in case:  # contrasts of an exam are made with the first
                nearest = min(measured, key=lambda other: abs(other - size))
                seconds += np.multiply(measured[nearest] or (0.0, 0.0), size / nearest)
            path = str(make_result_path(output, case.name, bids=bids))
            if "label_map" in case:
                path += f" and {make_label_path(output, case.name, bids)}"
            for each in caught:
                case.add_warning(each.message, each.category)
            lines[f"would write {path}"] = None  # once for all volumes of a scan
    return [*lines, *[f"would take about {format_estimate(*seconds)}"] * bool(seconds.any())]


def _estimate_seconds(evaluator: Any, batch: Any) -> tuple[float, float] | None:
    """Seconds of the inference on a case, at least and at most; None if that is not known."""
    inputs, _, *further = evaluator.prepare_batch(batch, evaluator.state.device)
    args, kwargs = further or ((), {})
    with evaluator.mode(evaluator.network):
        return estimate_seconds(evaluator.inferer, inputs, evaluator.network, *args, **kwargs)


def _split_case(case: Case, folder: Path) -> list[Case]:
    """Write the volumes of a 4-D scan into a folder, and make each a case, with the warnings about the scan.

    The label map goes with the first volume.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        check_header(Path(case["image"]), volumes=True)
        brightness = split_volumes(case["image"], folder)
    for each in caught:
        case.add_warning(each.message, each.category)
    described = case.inputs.get(case["image"]) or describe_file(case["image"])
    volumes = []
    for i, (file, value) in enumerate(brightness.items(), 1):
        entry = {**case.entry, "image": file, "name": f"{case.name}_volume_{i:0{len(str(len(brightness)))}d}"}
        entry["image_is_dark"] = value < _DARK * max(brightness.values())
        if axis := case.get("slice_axes", {}).get(case["image"]):
            entry["slice_axes"] = {file: axis}
        if i > 1:
            entry.pop("label_map", None)
        known: dict[str, Any] = {"warnings": [*case.warnings], "notices": [*case.notices]}
        sources = {**case.sources, file: case.source}
        volumes.append(replace(case, entry=entry, sources=sources, inputs={**case.inputs, file: described}, **known))
    if case.series:
        text = f"{case.name}: {len(brightness)} time points, so the result is one 4-D NIfTI file and no derived series."
        case.add_warning(text, Notice)
    return volumes


def _raise_first_problem(case: Case, volumes: Sequence[Case]) -> None:
    """Raise the first problem of a volume as one of its scan."""
    for i, volume in enumerate(volumes, 1):
        if volume.problem is not None:
            reason = volume.strip_name(volume.problem)
            raise ValueError(f"{case.source}: volume {i} of {len(volumes)}: {reason}")


def _run_4d_scan(cases: list[Case], output: Path, bids: bool, counted: tuple[int, int], **settings: Any) -> None:
    """Super-resolve each volume of the only case, a 4-D scan, and join the results if none failed."""
    (case,), volumes = cases, list[Case]()
    case.started = time.perf_counter()
    with open_part_folder(get_output_folder(output)) as part, case.catch_problem():
        results = part / "results"
        if bids:
            provenance.describe_dataset(output, describe_bundle(case.choice.candidate.bundle), [case["image"]])
        volumes = _split_case(case, part)
        for volume in volumes:
            with volume.catch_problem():
                check_volume(volume.entry)
        _raise_first_problem(case, volumes)
        _run_group(volumes, results, False, counted, **settings)
        _raise_first_problem(case, volumes)
        names = [volume.name for volume in volumes]
        with case.files.hold_back():
            result = join_results(results, names, case["image"], output, case.name, bids)
            if bids:
                provenance.describe_companions(result, make_label_path(output, case.name, bids))
            case.move_files()
        case.result = str(result)
        print(f"{case.name} -> {case.result}, {len(volumes)} volumes", flush=True)
    _collect_warnings(case, volumes)
    log_case(get_log_path(output, settings["shard"]), case)


def _collect_warnings(case: Case, volumes: Sequence[Case]) -> None:
    """Give a scan the warnings and notices of its volumes, each once."""
    for one in volumes:
        case.warnings = list(dict.fromkeys([*case.warnings, *map(one.strip_name, one.warnings)]))
        case.notices = list(dict.fromkeys([*case.notices, *map(one.strip_name, one.notices)]))


def _preview_4d_scan(cases: list[Case], output: Path, bids: bool, overlays: Sequence[str]) -> list[str]:
    """Check each volume of the only case, a 4-D scan, and return lines on what would be done."""
    (case,), volumes, lines = cases, list[Case](), list[str]()
    with tempfile.TemporaryDirectory() as folder, case.catch_problem():
        volumes = _split_case(case, Path(folder))
        for volume in volumes:
            volume.entry["name"] = case.name
        lines = _preview_group(volumes, output, bids, overlays)
        _raise_first_problem(case, volumes)
    _collect_warnings(case, volumes)
    return lines
