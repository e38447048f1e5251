"""The files that inference writes next to its results."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from nibabel.affines import voxel_sizes

from ..degradations import Degradation
from ..io import provenance
from ..io.files import as_json, replacing
from ..io.images import image_or_none
from ..io.inputs import describe_inputs
from ..io.naming import files_of, label_path, result_name
from ..runtime.precision import name_of
from ..values import is_true


class InferenceResults:
    """Writes a JSON next to each result that says how it was made, and a line for each scan to a log.

    It attaches to a :class:`~common.engines.CaseEvaluator` whose postprocessing has a ``SaveVolumed``. The JSON has the
    keys of BIDS derivatives (Description, Sources, Resolution, GeneratedBy, and SkullStripped if known). Under
    SuperResolution it has the bundle, its weights, scale, degradation, the inputs with digests of their voxels
    (:func:`common.io.inputs.describe_inputs`), the agreement that a transform has put into ``data["agreement"]``, how
    an :class:`~common.inferers.AdaptedInferer` changed the weights, warnings, seconds, spacing, precision, versions and
    device. The log is :func:`log_path`. Each case appends a line, so a killed run keeps its lines, and later runs
    follow earlier ones. Numbers that are not finite are null in both.

    Args:
        output_dir: folder of the results.
        bundle_root: folder of the bundle, with ``configs/metadata.json``.
        checkpoint: file of the weights, for a network that does not know its own; None if it starts without weights.
        degradation: from the result to the scan; None for a result of several scans.
        bids: whether results are named as BIDS derivatives; the folder then becomes a derivative dataset.
        shard: the share of the scans that this process has, such as "3/16", or None for all.

    Raises:
        ValueError: at the start of the run, where the folder cannot become a derivative dataset
            (:func:`common.io.provenance.describe_dataset`).
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        bundle_root: str | os.PathLike,
        checkpoint: str | os.PathLike | None,
        degradation: Degradation | None,
        bids: bool | str = False,
        shard: str | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.bundle = provenance.bundle_of(bundle_root)
        self.checkpoint = checkpoint
        self.degradation = degradation
        self.bids = is_true(bids, "bids")
        self.log = log_path(output_dir, shard)

    def attach(self, engine: Engine) -> None:
        """Describe each result when it is written, and log each case when it is done or has failed."""
        if self.bids:
            engine.add_event_handler(Events.STARTED, self._describe_dataset)
        # Before the result is written, so that a run that is killed leaves no result without its JSON.
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._describe_inputs)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._describe)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._log)
        engine.add_event_handler(Events.COMPLETED, self._say)
        self.weights: dict[str, str] = {}

    def _describe_dataset(self, engine: Any) -> None:
        entries = engine.data_loader.dataset.data
        sources = (file for entry in entries for file in files_of(entry))
        provenance.describe_dataset(self.output_dir, self.bundle, sources)

    def _describe_inputs(self, engine: Any) -> None:
        self.inputs = describe_inputs(engine.case.entry)

    def _describe(self, engine: Any) -> None:
        batch, output = engine.state.batch[0], engine.state.output[0]
        entry, path = engine.case.entry, Path(output["saved_to"])
        files = files_of(entry)
        # The file of a DICOM series is temporary.
        sources = [*entry.get("sources", map(provenance.source_of, files))]
        sources[0] = entry.get("source", sources[0])
        if not self.weights:
            self.weights = provenance.weights_of(engine.network, self.checkpoint)
        with contextlib.suppress(ValueError):  # a name that is too long for a label map has none
            labels = label_path(self.output_dir, result_name(entry), self.bids)
            if "label_map" not in entry and labels.exists():
                warnings.warn(f"{labels} is of an earlier result; give --label again, or remove it.", stacklevel=2)
        before, after = _spacing(files[0]), _spacing(path)
        agreement = output.get("agreement", batch.get("agreement"))
        own = {
            "Bundle": self.bundle["name"],
            "BundleVersion": self.bundle.get("version"),
            "Weights": self.weights or None,
            "Scale": self.degradation and list(self.degradation.factors),
            "Degradation": self.degradation and provenance.settings_of(self.degradation),
            "Agreement": None if agreement is None else float(agreement),
            "Adapted": getattr(engine.inferer, "said", None) or None,
            "Inputs": self.inputs,
            "SpacingBefore": before,
            "SpacingAfter": after,
            "Warnings": engine.case.warnings,
            "Seconds": round(time.perf_counter() - engine.case.started, 3),
            "Precision": name_of(engine.network),
            "Device": provenance.device_name(engine.state.device),
            "Versions": provenance.versions(),
        }
        said = {
            "Description": f"Super-resolved from {Path(files[0]).name} by a network; fine detail is an estimate.",
            "Sources": sources,
            **provenance.known_of_source(files[0]),
            "Resolution": provenance.resolution(before, after),
            "GeneratedBy": [provenance.generated_by(self.bundle)],
            "SuperResolution": {key: value for key, value in own.items() if value is not None},
        }
        stem = path.name.removesuffix(".nii.gz")
        with replacing(path.with_name(f"{stem}.json")) as temporary:
            temporary.write_text(as_json(said, indent=2) + "\n")
        path.with_name(f"{stem}.html").unlink(missing_ok=True)  # of an earlier result; that of this one comes later

    def _log(self, engine: Any) -> None:
        case = engine.case
        _append(self.log, case.entry, case.result, case.error, case.warnings, case.seconds)

    def _say(self, engine: Any) -> None:
        if self.output_dir.parent.name.startswith(".part-"):
            return  # the results of volumes, which are joined elsewhere
        if any(case.result for case in engine.cases):
            print(f"results, each with a .json next to it, are in {self.output_dir}")
        print(f"the log is {self.log}")


def log_path(output_dir: str | os.PathLike, shard: str | None = None) -> Path:
    """Return the path of this process's log; no two processes share one.

    Args:
        output_dir: folder of the results.
        shard: such as "3/16"; under torchrun each shard is divided once more among the processes.

    Returns:
        ``<output_dir>/log.jsonl``, or ``log_<k>of<n>.jsonl``, k from 1, if the scans are shared.
    """
    part, parts = (int(n) for n in (shard or "1/1").split("/"))
    rank, ranks = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    part, parts = (part - 1) * ranks + rank + 1, parts * ranks
    return Path(output_dir) / ("log.jsonl" if parts == 1 else f"log_{part}of{parts}.jsonl")


def log_joined(
    volumes: Path, log: Path, entry: Mapping[str, Any], result: str | os.PathLike | None, error: str | None
) -> None:
    """Log a 4-D scan, whose volumes were done one by one.

    Args:
        volumes: log of its volumes, which may be missing.
        log: from :func:`log_path`.
        entry: of the scan.
        result: its path, or None.
        error: reason of the failure, or None.
    """
    said = [json.loads(line) for line in volumes.read_text().splitlines()] if volumes.is_file() else []
    texts = list(dict.fromkeys(text for one in said for text in one["warnings"]))
    _append(log, entry, None if result is None else str(result), error, texts, sum(one["seconds"] for one in said))


def _append(
    log: Path,
    entry: Mapping[str, Any],
    result: str | None,
    error: str | None,
    texts: Sequence[str],
    seconds: float,
) -> None:
    """Append a scan's line to a log."""
    files = {key: entry[key] for key in ("image", "guide", "stacks") if key in entry}
    files |= {"image": entry["source"]} if "source" in entry else {}
    record = {
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "name": result_name(entry),
        **files,
        "result": result,
        "error": error,
        "warnings": texts,
        "seconds": round(seconds, 3),
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(as_json(record) + "\n")


def _spacing(path: str | os.PathLike) -> list[float] | None:
    """Voxel sizes of a file in mm, None where it cannot be read."""
    image = image_or_none(path)
    return None if image is None else [round(float(size), 5) for size in voxel_sizes(image.affine)]
