"""What a result added to its scan, and how much of it is right."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch

from ..degradations.base import Degradation
from ..degradations.turned import TurnedDegradation
from ..io.naming import make_case_stem
from ..metrics.added_detail import measure_added_share, split_measured
from ..metrics.fourier_ring import find_agreeing_frequencies, map_patches
from ..reports.added import draw_added
from .judgement import Judgement, Question, Rows
from .person import Person
from .volume import Volume

_ALL = "all"  # tissue


def judge_added(person: Person) -> Judgement:
    """Split results, the scan's interpolation and HR into what the scan has measured and what was added."""
    volumes = [*person.results, person.cubic, *([person.hr] if person.hr else [])]
    # Each by itself: how a volume is continued beyond its borders must not depend on the others.
    added = [split_measured(torch.from_numpy(each.voxels), person.degradation)[1].numpy() for each in volumes]
    regions = {name: mask for name, mask in person.regions.items() if name != "air"}
    tissue = np.logical_or.reduce(list(regions.values()))
    regions = {_ALL: tissue, **regions}
    factors = person.degradation.factors
    normal, nyquist = int(np.argmin(factors)), 0.5 / max(factors)
    first, second = (axis for axis in range(3) if axis != normal)
    coarse = None if factors[first] == factors[second] else first if factors[first] > factors[second] else second
    missing = None if person.hr is None else added[-1]
    judgement = Judgement([])
    for number, (volume, own) in enumerate(zip(volumes, added, strict=True)):
        rows: Rows = [
            {"result": "HR" if volume is person.hr else volume.label, "region": name, "added": 100 * share}
            for name, share in measure_added_share(person.cubic.voxels, own, regions).items()
        ]
        rows[0]["degradation"] = _format_degradation(person.degradation)
        judgement.rows += rows
        is_result = number < len(person.results)
        if person.hr is not None and missing is not None and volume is not person.hr:
            for row in rows:
                row |= _compare(own[regions[row["region"]]], missing[regions[row["region"]]])
            frequencies, corners = find_agreeing_frequencies(volume.voxels, person.hr.voxels, tissue, normal, coarse)
            flagged = frequencies < nyquist
            if len(frequencies):
                rows[0] |= {"contradicts": 100 * flagged.mean(), "agrees_to": float(np.median(frequencies)) / nyquist}
            if is_result:
                flags = map_patches(flagged, corners, volume.voxels.shape, normal)
                judgement.volumes[f"{_name_file(person, number)}_contradicts"] = _make_image(flags, volume)
        if is_result:
            name = f"{_name_file(person, number)}_added"
            judgement.volumes[name] = _make_image(own, volume)
            shown = {volume.label: (volume.voxels, own)}
            if person.hr is not None and missing is not None:
                shown["HR"] = person.hr.voxels, missing
            judgement.pictures[name] = draw_added(shown, volume.affine)
    return judgement


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


def _name_file(person: Person, number: int) -> str:
    """A name of its own for each result of each person."""
    stems = [make_case_stem(result.name, person.name) for result in person.results]
    several = stems.count(stems[number]) > 1
    return f"{stems[number]}_{number + 1}" if several else stems[number]


ADDED = Question(
    name="added",
    question="What was added to the scan, and how much of it is right?",
    columns={
        "region": "tissue, by brightness or of the anatomy",
        "added": "root mean square of what the scan has not measured, in % of the scan's mean brightness there; of HR: "
        "what is missing in the scan",
        "degradation": "from the result to the scan, by the JSON of the first result, else by the two grids",
        "correlation": "of what was added with what is missing: 1 is right, 0 is unrelated",
        "restored": "share of the missing detail that is restored, in %; below 0, adding nothing would be nearer to HR",
        "contradicts": "share of patches, in %, whose Fourier ring correlation with HR falls below 0.5 within the "
        "frequencies of the scan; in thick slices only of directions near that across them",
        "agrees_to": "median frequency up to which patches agree with HR, in multiples of the scan's own along its "
        "coarsest axis",
    },
    is_asked=lambda person: person.scan is not None,
    judge=judge_added,
    by=("region",),
)
