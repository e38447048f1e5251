"""The files that inference writes next to its results."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import IterationEvents
from nibabel.affines import voxel_sizes

from ...data.description import describe_bundle, describe_result
from ...degradations.base import Degradation
from ...io.files import format_json, get_sidecar_path
from ...io.images import open_image_or_none
from ...io.naming import get_output_folder
from ...io.writing import write_atomically
from ...metrics.verdict import CubicComparison, compare_with_cubic, describe_verdict
from ...runtime.distributed import get_rank
from ...runtime.precision import name_precision
from ...transforms.scan.save import get_degradation, get_saver
from .. import provenance
from ..files import find_written, remove_file
from ..naming import list_companions, make_label_path, make_result_path
from .case import Case
from .inputs import hide_folder
from .sharding import parse_shard


class InferenceResults:
    """Writes a JSON next to each result that says how it was made, and a line for each scan to a log.

    It attaches to a :class:`CaseEvaluator` whose postprocessing has a ``SaveVolumed``, and gives this
    the description for headers (:func:`common.data.description.describe_result`). The JSON has the keys of BIDS
    derivatives (Description, Sources, Resolution, GeneratedBy, and SkullStripped if known). Under SuperResolution it
    has the verdict in a sentence (:func:`common.metrics.verdict.describe_verdict`), the difference from cubic
    interpolation, the bundle, its weights, scale, degradation, the inputs with digests of their voxels
    (:func:`describe_file`), the differences from the scan that :class:`DataConsistency` has measured
    before the result is rounded, how an :class:`~common.inferers.AdaptedInferer` changed the weights, warnings,
    seconds, spacing, precision, versions and device. If results are named as BIDS derivatives, their folder becomes a
    derivative dataset. The log is :func:`get_log_path`. Each case appends a line, so a killed run keeps its lines, and
    later runs follow earlier ones. Numbers that are not finite are null in both.

    Args:
        bundle_root: folder of the bundle, with ``configs/metadata.json``.
        bids: whether results are named as BIDS derivatives.
        shard: the share of the scans that this process has, such as "3/16", or None for all.
        keep_paths: whether the JSON has whole paths. Else it has names of files and UIDs of DICOM series only, because
            folders may be named like patients. The log always has paths, as they were given.
    """

    def __init__(
        self, bundle_root: str | os.PathLike, bids: bool = False, shard: str | None = None, keep_paths: bool = False
    ) -> None:
        self.bundle_root, self.bundle = bundle_root, describe_bundle(bundle_root)
        self.bids = bids
        self.keep_paths = keep_paths
        self.shard = shard

    def attach(self, engine: Any) -> None:
        """Describe each result when it is written, and log each case when it is done or has failed."""
        saver = get_saver(engine.postprocessing)
        # None for a result of several scans.
        self.degradation: Degradation | None = get_degradation(engine.postprocessing)
        saver.description = describe_result(self.bundle_root, self.degradation)
        saver.make_path, self.output_dir = partial(make_result_path, bids=self.bids), Path(saver.output_dir)
        self.log = get_log_path(self.output_dir, self.shard)
        if self.bids:
            engine.add_event_handler(Events.STARTED, self._describe_dataset)
        # Before the result is written, so that a run that is killed leaves no result without its JSON.
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._describe_inputs)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._describe)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._log)
        if self.bids:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._describe_companions)
        engine.add_event_handler(Events.COMPLETED, self._print_folder)
        self.weights: dict[str, str] = {}

    def _describe_dataset(self, engine: Any) -> None:
        sources = (file for case in engine.data_loader.cases for file in case.images)
        provenance.describe_dataset(self.output_dir, self.bundle, sources)

    def _describe_inputs(self, engine: Any) -> None:
        self.inputs, self.names = engine.case.describe_inputs(), engine.case.name_files()
        (self.outside,) = engine.state.batch.get("outside_training", [None])
        if self.outside is None:
            self.outside = getattr(engine.inferer, "outside", None)  # of several scans
        # On the network's grid, before the result is brought to another.
        self.comparison: CubicComparison | None = getattr(engine.inferer, "comparison", None)
        if self.comparison is not None:
            self.comparison = replace(self.comparison, stack=self.names.get(self.comparison.stack, ""))
        if self.degradation is not None:
            scan, result = engine.state.batch["image"], engine.state.output["pred"]
            affine = np.asarray(scan.affine, dtype=np.float64).reshape(-1, 4, 4)[0]
            place = np.asarray(self.degradation.compute_hr_affine(affine), dtype=np.float64)
            volumes = (torch.as_tensor(each)[0, 0].detach() for each in (result, scan))
            self.comparison = compare_with_cubic(next(volumes), place, next(volumes), affine)

    def _describe_verdict(self, engine: Any) -> str | None:
        """The verdict on the result; None if it cannot be compared."""
        if self.comparison is None:
            return None
        return describe_verdict(self.comparison, self.outside, engine.case.contradicts)

    def _describe(self, engine: Any) -> None:
        output = engine.state.output[0]
        case, path = engine.case, Path(output["saved_to"])
        files = case.images
        if not self.weights:
            self.weights = provenance.describe_weights(engine.network)
        with contextlib.suppress(ValueError):  # a name that is too long for a label map has none
            labels = make_label_path(self.output_dir, case.name, self.bids)
            if "label_map" not in case and labels.exists():
                warnings.warn(f"{labels} is of an earlier result; give --label again, or remove it.", stacklevel=2)
        case.verdict = self._describe_verdict(engine)
        if self.comparison is not None and self.comparison.contradicts:
            case.add_warning(f"{str(case.verdict).partition(';')[0]}. See both by mri-sr compare.", UserWarning)
        before, after = _read_spacing(files[0]), _read_spacing(find_written(path))
        bids_metadata = {
            "Verdict": case.verdict,
            "DifferenceFromCubic": self.comparison and _round_share(self.comparison.difference),
            "CubicOf": (self.comparison and self.comparison.stack) or None,
            "OutsideTraining": self.outside,
            "Contradicts": case.contradicts or None,
            "Bundle": self.bundle["name"],
            "BundleVersion": self.bundle.get("version"),
            "Weights": self.weights or None,
            "Scale": self.degradation and list(self.degradation.factors),
            "Degradation": self.degradation and provenance.describe_settings(self.degradation),
            "DifferenceFromScan": _round_share(output.get("scan_difference")),
            "DifferenceBeyondNoise": _round_share(output.get("consistency_error")),
            "Adapted": provenance.hide_folders(getattr(engine.inferer, "report", {}), self.names) or None,
            "Inputs": self.inputs if self.keep_paths else [hide_folder(described) for described in self.inputs],
            "SpacingBefore": before,
            "SpacingAfter": after,
            "Warnings": case.warnings,
            "Notices": case.notices,
            "Seconds": round(case.seconds, 3),
            "Precision": name_precision(engine.network),
            "Device": provenance.name_device(engine.state.device),
            "Versions": provenance.list_versions(),
        }
        description = {
            "Description": f"Super-resolved from {self.names[files[0]]} by a network; fine detail is an estimate.",
            "Sources": [self._name_source(case, file) for file in files],
            **provenance.read_source_metadata(files[0], case.sources.get(files[0])),
            "Resolution": provenance.describe_resolution(before, after),
            "GeneratedBy": [provenance.describe_generator(self.bundle)],
            "SuperResolution": {key: value for key, value in bids_metadata.items() if value is not None},
        }
        if not self.keep_paths:
            description = provenance.hide_folders(description, self.names)
        sidecar = get_sidecar_path(path)
        with write_atomically(sidecar) as temporary:
            temporary.write_text(format_json(description, indent=2) + "\n")
        for file in list_companions(path):
            remove_file(file)  # of an earlier result; those of this one come later

    def _name_source(self, case: Case, file: str) -> str:
        source, uid = case.sources.get(file, file), case.inputs.get(file, {}).get("SeriesInstanceUID")
        if uid is None:
            return provenance.name_source(source)
        return source if self.keep_paths else f"DICOM series {uid}"

    def _describe_companions(self, engine: Any) -> None:
        if (case := engine.case).result is not None:
            provenance.describe_companions(Path(case.result), make_label_path(self.output_dir, case.name, True))

    def _log(self, engine: Any) -> None:
        log_case(self.log, engine.case)

    def _print_folder(self, engine: Any) -> None:
        if engine.is_part:
            return
        if any(case.result for case in engine.cases):
            print(f"results, each with a .json next to it, are in {get_output_folder(self.output_dir)}")
        if self.log is not None and os.access(self.log, os.W_OK):
            print(f"the log is {self.log}")


def get_log_path(output_dir: str | os.PathLike, shard: str | None = None) -> Path | None:
    """Return the path of this process's log; no two processes share one.

    Args:
        output_dir: folder of the results, or the file of the only one.
        shard: such as "3/16"; under torchrun each shard is divided once more among the processes.

    Returns:
        ``<output_dir>/log.jsonl``, or ``log_<k>of<n>.jsonl``, k from 1, if the scans are shared.
        None for a file, next to which there is its JSON only.
    """
    if get_output_folder(output_dir) != Path(output_dir):
        return None
    (part, parts), (number, count) = parse_shard(shard), get_rank()
    part, parts = (part - 1) * count + number + 1, parts * count
    return Path(output_dir) / ("log.jsonl" if parts == 1 else f"log_{part}of{parts}.jsonl")


def log_case(log: Path | None, case: Case, passed_over: str | None = None) -> None:
    """Append a line about a case that is done, has failed or is passed over to a log, if there is one.

    Args:
        log: from :func:`get_log_path`.
        case: a scan, or an exam.
        passed_over: why it is no scan; None for a scan.
    """
    if log is None:
        return
    record = {
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "name": case.name,
        **{key: _find_sources(case, case[key]) for key in ("image", "guide", "stacks", "contrasts") if key in case},
        "result": case.result,
        "verdict": case.verdict,
        "error": case.problem,
        **({"passed_over": passed_over} if passed_over else {}),
        "warnings": case.warnings,
        "notices": case.notices,
        "seconds": round(case.seconds, 3),
    }
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(format_json(record) + "\n")
    except OSError as error:
        text = f"{log}: the log cannot be written ({error.strerror}); results are not affected. Make it writable."
        case.add_warning(text, UserWarning)


def _find_sources(case: Case, files: Any) -> Any:
    """What a file was made of, or the file; of lists of files likewise."""
    return case.sources.get(files, files) if isinstance(files, str) else [_find_sources(case, file) for file in files]


def _round_share(share: Any) -> float | None:
    return None if share is None else round(float(share), 6)


def _read_spacing(path: str | os.PathLike) -> list[float] | None:
    """Voxel sizes of a file in mm, None where it cannot be read."""
    image = open_image_or_none(path)
    return None if image is None else [round(float(size), 5) for size in voxel_sizes(image.affine)]
