"""What a result added to its scan, and how much of it is right."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from nibabel.orientations import io_orientation

from ... import degradations
from ...degradations.base import Degradation
from ...degradations.turned import TurnedDegradation
from ...geometry.affines import find_slice_permutation
from ...geometry.nearest import sample_nearest
from ...io.naming import make_case_stem
from ...metrics.added_detail import measure_added_share, split_measured
from ...metrics.baseline import interpolate_cubic
from ...program.volume import Volume, is_made_of, measure_factors
from ...reports.files import escape_text
from ...reports.planes import PLANES, View, draw_plane, label_ends
from ...runtime.errors import Notice
from .assessment import Assessment, Judgement, Rows
from .person import Person, join_tissue

_ALL = "all"  # regions
_BRIGHTEST, _LARGEST = 0.999, 0.998  # quantiles
_INCHES = 3.0


class Added(Assessment):
    """The scan: results, its interpolation and HR are split into what it has measured and what was added."""

    name = "added"
    question = "What was added to the scan, and how much of it is right?"
    columns: ClassVar[Mapping[str, str]] = {
        "region": "tissue, by brightness or of the anatomy",
        "added": "root mean square of what the scan has not measured, in % of that of the scan's cubic interpolation "
        "there; of HR: what is missing in the scan",
        "degradation": "from the result to the scan, by the JSON of the first result, else by the two grids",
        "correlation": "of what was added with what is missing: 1 is right, 0 is unrelated",
        "restored": "share of the missing detail that is restored, in %; below 0, adding nothing would be nearer to HR",
    }
    asked_by = ("scan",)
    by = ("region",)

    def judge(self) -> Judgement:
        person = self.person
        if (found := find_degradation(person)) is None:
            warnings.warn(
                f"{person.results[0].name}: what was added is not measured, because the result was not made of one "
                "scan by one degradation; leave a stack out instead.",
                Notice,
                stacklevel=2,
            )
            return Judgement([])
        degradation, cubic = found
        volumes = [*person.results, *([person.hr] if person.hr else [])]
        regions = {name: mask for name, mask in person.regions.items() if name != "air"}
        if cubic is not person.cubic:
            regions = {
                name: sample_nearest(mask, person.cubic.affine, cubic.voxels.shape, cubic.affine)
                for name, mask in regions.items()
            }
            volumes = [_fill(volume.place_on_grid(cubic), cubic) for volume in volumes]
        regions = {_ALL: join_tissue(regions), **regions}
        hr = volumes.pop() if person.hr else None
        results, volumes = volumes, [*volumes, cubic, *([hr] if hr else [])]
        # Each by itself: how a volume is continued beyond its borders must not depend on the others.
        added = [split_measured(torch.from_numpy(each.voxels), degradation)[1].numpy() for each in volumes]
        missing = None if hr is None else added[-1]
        names = _name_files(person)
        judgement = Judgement([])
        for number, (volume, own) in enumerate(zip(volumes, added, strict=True)):
            rows: Rows = [
                {"result": "HR" if volume is hr else volume.label, "region": name, "added": 100 * share}
                for name, share in measure_added_share(cubic.voxels, own, regions).items()
            ]
            rows[0]["degradation"] = _format_degradation(degradation)
            judgement.rows += rows
            if hr is not None and missing is not None and volume is not hr:
                for row in rows:
                    row |= _compare(own[regions[row["region"]]], missing[regions[row["region"]]])
            if number < len(results):
                name = f"{names[number]}_added"
                judgement.volumes[name] = _make_image(own, volume)
                shown = {volume.label: (volume.voxels, own)}
                if hr is not None and missing is not None:
                    shown["HR"] = hr.voxels, missing
                judgement.pictures[name] = draw_added(shown, volume.affine)
        return judgement


def find_degradation(person: Person) -> tuple[Degradation, Volume] | None:
    """The operator to the scan, from the JSON of the first result, else from the two grids; and cubic on its own grid.

    It acts on volumes with the axes of the files. Without a JSON it is k-space truncation where a sample at the end
    of each axis did not move, else a Gaussian profile. None if the result has a grid of its own and no degradation.
    """
    scan, result = person.scan, person.results[0]
    assert scan is not None
    found, record = measure_factors(scan, result), result.record.get("Degradation")
    if isinstance(record, Mapping) and hasattr(degradations, str(record.get("Class"))):
        known = _build_degradation(record)
    elif found is None:
        return None
    # A mirrored file has the first sample last.
    elif all(float(f).is_integer() and o in (0, f - 1) for f, o in zip(*found, strict=True)):
        known = degradations.KSpaceTruncation([int(f) for f in found[0]])
    else:
        return degradations.GaussianProfile(found[0]), person.cubic
    # A network may have turned the axes of the files.
    orders, mirrors = itertools.permutations(range(3)), itertools.product((False, True), repeat=3)
    for order, mirrored in itertools.product(orders, mirrors):
        turned = TurnedDegradation(known, order, mirrored)
        if found is not None and np.allclose([turned.factors, turned.offset], found, atol=0.02):
            return turned, person.cubic
    if not is_made_of(result, scan):
        raise ValueError(
            f"judge: the JSON of {result.name} has a degradation with factors {list(known.factors)} and offset "
            f"{list(known.offset)}, which does not lead to --scan {scan.name}; give the scan it was made of."
        )
    # The result was brought to another grid, as by --grid_file.
    order = (0, 1, 2) if len(set(known.factors)) == 1 else find_slice_permutation(scan.affine, "auto")
    turned = TurnedDegradation(known, order, (io_orientation(scan.affine)[:, 1] < 0).tolist())
    voxels = interpolate_cubic(scan.voxels, turned.factors, turned.offset)
    return turned, Volume("cubic", voxels, turned.compute_hr_affine(scan.affine), {})


def _fill(volume: Volume, cubic: Volume) -> Volume:
    """A volume that adds nothing where it is missing."""
    if volume.missing is None:
        return volume
    return replace(volume, voxels=np.where(volume.missing, cubic.voxels, volume.voxels))


def _build_degradation(record: Any) -> Any:
    """The operator that :func:`common.program.provenance.describe_settings` has described."""
    if isinstance(record, Mapping):
        settings = {key: _build_degradation(value) for key, value in record.items() if key != "Class"}
        if "kernel" in settings:
            settings["kernel"] = torch.tensor(settings["kernel"])
        return getattr(degradations, str(record["Class"]))(**settings)
    return [_build_degradation(each) for each in record] if isinstance(record, list) else record


def _compare(added: np.ndarray, missing: np.ndarray) -> dict[str, float]:
    """How much of what was added is right, against what is missing, voxels (N,)."""
    added, missing = added.astype(np.float64), missing.astype(np.float64)
    if not (added.any() and missing.any()):
        return {}
    restored = 1 - np.square(missing - added).sum() / np.square(missing).sum()
    return {"correlation": float(np.corrcoef(added, missing)[0, 1]), "restored": 100 * float(restored)}


def _format_degradation(degradation: Degradation) -> str:
    """Its kind and factors."""
    kind = degradation.degradation if isinstance(degradation, TurnedDegradation) else degradation
    return f"{type(kind).__name__} {'x'.join(f'{factor:g}' for factor in degradation.factors)}"


def _make_image(voxels: np.ndarray, volume: Volume) -> nib.Nifti1Image:
    return nib.Nifti1Image(voxels.astype(np.float32), volume.affine)


def _name_files(person: Person) -> list[str]:
    """A name of its own for each result."""
    stems = [make_case_stem(result.name, person.name) for result in person.results]
    return [f"{stem}_{n}" if stems.count(stem) > 1 else stem for n, stem in enumerate(stems, 1)]


def draw_added(volumes: Mapping[str, tuple[np.ndarray, np.ndarray]], affine: np.ndarray) -> Figure:
    """Draw volumes, and over each what was added to the scan: warm colours add, cool colours remove.

    Args:
        volumes: by name, the volume and what was added, each ``(X, Y, Z)`` in the same units. All have the grey window
            and the colours of the first.
        affine: of all.

    Returns:
        A figure with a row for each plane, and two columns for each volume.
    """
    first, added = next(iter(volumes.values()))
    top = float(np.quantile(first, _BRIGHTEST))
    view = View.from_volume(first.clip(min(float(first.min()), 0.0), top), affine)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": min(float(first.min()), 0.0), "vmax": top}
    largest = float(np.quantile(np.abs(added), _LARGEST)) or 1.0
    signed: dict[str, Any] = {"cmap": "seismic", "vmin": -largest, "vmax": largest}
    millimetres = np.ptp(view.cut_panel(first, affine).edges, axis=1)
    # Anterior or superior is up.
    heights = [millimetres[max(axis for axis in range(3) if axis != normal)] for normal in PLANES.values()]
    inches = _INCHES * sum(heights) / millimetres.max()
    figure = Figure(figsize=(2 * _INCHES * len(volumes) + 1, inches + 1), layout="constrained")
    axes = figure.subplots(len(PLANES), 2 * len(volumes), squeeze=False, height_ratios=heights)
    for column, (name, pair) in enumerate(volumes.items()):
        shown, detail = (view.cut_panel(each, affine) for each in pair)
        for row, normal in enumerate(PLANES.values()):
            place: Any = shown.edges[[axis for axis in range(3) if axis != normal]], (1.0, 1.0, 1.0), normal
            for each in axes[row, 2 * column : 2 * column + 2]:
                draw_plane(each, shown.planes[row], *place, **grey)
            strength = (np.abs(detail.planes[row]) / largest).clip(0, 1)
            draw_plane(axes[row, 2 * column + 1], detail.planes[row], *place, alpha=strength.T, **signed)
            label_ends(axes[row, 2 * column], normal)
        axes[0, 2 * column].set_title(escape_text(name), fontsize=9)
        axes[0, 2 * column + 1].set_title("missing in the scan" if column else "added to the scan", fontsize=9)
    figure.colorbar(ScalarMappable(Normalize(-largest, largest), "seismic"), ax=axes, label="units of the scan")
    return figure
