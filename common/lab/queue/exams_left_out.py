"""Foretell each stack of real exams from another one by each method, and all from the rest together; write the rows.

    python -m common.lab.queue.exams --clones CLONES --output_dir EXAMS
    python -m common.lab.queue.exams_left_out --exams EXAMS --output_dir OUT

exams_left_out.csv beside this file gets the rows of each stack when they are done; a later run goes on after them.
exams_over_cubic.csv gets the means over people. The volumes go to OUT, and those that are there are used: after new
weights, name another OUT and remove the rows. The source
of a stack is the next one of the exam. All volumes of one grid share a registration: SMORE and all stacks together
have grids of their own. Zero filling and total variation take slices as thick as the protocol says, else as they are
apart. Two controls say what the measure sees: cubic blurred by 0.8 mm, and cubic shifted by half a slice. Correlation
is mostly of what cubic shows too, and rewards a blur where a stack does not lie exactly. ``coherence`` weighs
frequencies and directions alike: it is the mean over 0.1 to 0.35 cycles/mm in the stack's slices, by cubic's
registration. It does not see a blur. What is gained across the slices of the source shows in a stack of another plane.
A stack of the same plane averages over it.
"""

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from ...degradations.profiles import GaussianProfile
from ...geometry.gaussian import FWHM_PER_SIGMA
from ...inferers.classical import SplineInferer, TotalVariationInferer, ZeroFillingInferer
from ...io.writing import write_atomically
from ...metrics.volume import shift_volume
from ...program.commands.judge import judge
from ...program.commands.super_resolve import super_resolve
from ...program.volume import Volume, measure_factors
from ...stacks.left_out import LeftOutStack
from ..judge.left_out import cut_to_data, make_stack, read_thickness
from .coherence import RINGS, measure_coherence

_BLUR = 0.8  # mm, full width at half maximum
_SAME_PLANE = 30  # degrees between slices
NETWORKS: dict[str, dict[str, Any]] = {
    "ct_guided": {"bundle": "ct_guided", "adapt_iterations": 0},
    "fine_tuned": {"bundle": "ct_guided"},
    "smore": {"bundle": "smore"},
}
"""By method: the options of mri-sr."""
_DETAIL = RINGS[1:3]
# Scores, and in which plane the stacks lie.
_COLUMNS = [(key, plane) for plane in ("another", "the same") for key in ("psnr", "correlation", "coherence")]


def write_classical(scan: Path, result: Path, folder: Path) -> dict[str, Path]:
    """Write what needs no network, and the controls, on the grid of a result; returns the files by method."""
    lr, sr = (Volume.read(str(file), "the scan") for file in (scan, result))
    found = measure_factors(lr, sr)
    assert found is not None
    factors = [round(factor) for factor in found[0]]
    across = int(np.argmax(factors))
    thickness = float(lr.metadata.get("SliceThickness", lr.spacing[across])) / float(lr.spacing[across])
    degradation = GaussianProfile(factors, fwhm=thickness)
    top = float(np.quantile(lr.voxels, 0.999))
    image = torch.from_numpy(lr.voxels.astype(np.float32) / top)[None, None]
    volumes = {
        name: inferer(degradation)(image, torch.nn.Identity())[0, 0].numpy() * top
        for name, inferer in (
            ("cubic", SplineInferer),
            ("zero_filling", ZeroFillingInferer),
            ("total_variation", TotalVariationInferer),
        )
    }
    cubic = volumes["cubic"]
    volumes["blurred"] = gaussian_filter(cubic, _BLUR / FWHM_PER_SIGMA / voxel_sizes(sr.affine))
    volumes["shifted"] = shift_volume(
        cubic, [factor / 2 if axis == across else 0 for axis, factor in enumerate(factors)]
    )
    files = {}
    for name, voxels in volumes.items():
        files[name] = folder / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), sr.affine), files[name])
    return files


def _find_mask(exam: Path, stack: str) -> str | None:
    mask = exam / f"{stack}_mask.nii.gz"
    return str(mask) if mask.exists() else None


def find_plane(exam: Path, left_out: str, source: str) -> str:
    """Whether the slices of two stacks lie in "the same" plane, but for small turns, or in "another"."""
    normals = []
    for name in (left_out, source):
        affine = nib.load(exam / f"{name}.nii.gz").affine
        spacing = voxel_sizes(affine)
        normals.append(affine[:3, spacing.argmax()] / spacing.max())
    return "the same" if abs(normals[0] @ normals[1]) > np.cos(np.radians(_SAME_PLANE)) else "another"


def judge_stack(
    exam: Path, left_out: str, source: str, others: list[str], folder: Path, networks: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Make all volumes of a source and of all other stacks together, and judge them by the stack that was left out."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.nii.gz" for name in networks}
    for name, options in networks.items():
        if not files[name].exists():
            scan = str(exam / f"{source}.nii.gz")
            super_resolve(scan, output_dir=str(files[name]), quiet=True, **options)
    files |= write_classical(exam / f"{source}.nii.gz", files["ct_guided"], folder)
    detail = measure_detail(exam, left_out, files)
    if len(others) > 1:
        files["together"] = folder / "together.nii.gz"
        stacks = [str(exam / f"{name}.nii.gz") for name in others]
        region = _find_mask(exam, others[0])
        if not files["together"].exists():
            super_resolve(*stacks, output_dir=str(files["together"]), together="visits", region=region, quiet=True)
    judge(
        *map(str, files.values()),
        left_out=str(exam / f"{left_out}.nii.gz"),
        region=_find_mask(exam, left_out),
        output_dir=str(folder / "judged"),
        overwrite=True,
    )
    with (folder / "judged" / "left_out.csv").open(newline="") as file:
        rows = [{**row, "result": row["result"].removesuffix(".nii.gz")} for row in csv.DictReader(file)]
    plane = {"plane": find_plane(exam, left_out, source)}
    return [plane | row | detail.get(row["result"], {}) for row in rows]


def measure_detail(exam: Path, left_out: str, files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """The mean coherence of each method with the stack over directions and two rings, all by cubic's registration."""
    cut = cut_to_data(Volume.read(str(exam / f"{left_out}.nii.gz"), "the stack"))
    mask = _find_mask(exam, left_out)
    region = None if mask is None else torch.from_numpy(Volume.read(mask, "the mask").sample_mask(cut, "the mask") > 0)
    stack = LeftOutStack(make_stack(cut, read_thickness(cut)), region)
    shown = {name: make_stack(cut_to_data(Volume.read(str(file), name))) for name, file in files.items()}
    seen = stack.see_alike([*shown.values()], [stack.see(shown["cubic"])] * len(shown))
    found, common = stack.compare(seen)
    rows = {}
    for name, each in zip(shown, found, strict=True):
        pair = cut.voxels, each.voxels.numpy(), common.numpy(), cut.spacing[:2]
        values = [value for ring in _DETAIL for value, _ in measure_coherence(*pair, ring)]
        rows[name] = {"coherence": f"{np.nanmean(values):.4g}"}
    return rows


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with write_atomically(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def summarise(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """For each method, by how much it is above cubic, the mean over people (of each person over stacks) and its SD.

    Stacks of another plane than their source's are apart from those of the same.
    """
    stacks: dict[tuple[str, str, str], dict[str, Mapping[str, str]]] = {}
    for row in rows:
        stacks.setdefault((row["person"], row["exam"], row["left_out"]), {})[row["result"]] = row
    table = []
    for method in dict.fromkeys(row["result"] for row in rows if row["result"] != "cubic"):
        of = [results[method] for results in stacks.values() if method in results]
        cells = {"method": method, "stacks": str(len(of)), "slices": str(sum(int(row["slices"]) for row in of))}
        for key, plane in _COLUMNS:
            people: dict[str, list[float]] = {}
            for (person, *_), results in stacks.items():
                if results["cubic"]["plane"] == plane and method in results and results[method].get(key):
                    difference = float(results[method][key]) - float(results["cubic"][key])
                    people.setdefault(person, []).append(difference)
            if means := [float(np.mean(each)) for each in people.values()]:
                spread = f"±{np.std(means, ddof=1):.3f}" if len(means) > 1 else ""
                gain = f"{np.mean(means):+.3f}{spread}, {sum(m > 0 for m in means)} of {len(means)}"
                cells[f"{key}, {plane} plane"] = gain
        table.append(cells)
    return table


def judge_stacks(
    exams: Sequence[Path],
    output_dir: Path,
    table: Path,
    means: Path,
    networks: Mapping[str, Mapping[str, Any]] = NETWORKS,
    together: bool = True,
) -> None:
    """Foretell each stack of exams from the next one, write the table after each, and the means over people.

    Args:
        exams: their folders.
        output_dir: gets the volumes.
        table: gets the rows; a stack whose rows of all networks it has is not judged again.
        means: gets the means.
        networks: by method, the options of ``mri-sr``.
        together: whether all other stacks of an exam are also combined.

    Raises:
        ValueError: if an exam has fewer than two stacks.
        SystemExit: when all are done, if some could not be judged; names them.
    """
    rows: list[dict[str, str]] = []
    if table.exists():
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
    found = {(row["exam"], row["left_out"], row["result"]) for row in rows}
    known = {folder: json.loads((folder / "exam.json").read_text()) for folder in exams}
    if alone := [str(folder) for folder, exam in known.items() if len(exam["stacks"]) < 2]:
        raise ValueError(f"{', '.join(alone)}: exam.json has fewer than two stacks, of which one is left out.")
    places = [(place, folder, name) for folder, exam in known.items() for place, name in enumerate(exam["stacks"])]
    failures = []
    for _, folder, left_out in tqdm(sorted(places), "stacks"):  # each exam's first stack, then its second
        if all((folder.name, left_out, network) in found for network in networks):
            continue
        exam, names = known[folder], list(known[folder]["stacks"])
        others = [name for name in names if name != left_out] if together else []
        source = names[(names.index(left_out) + 1) % len(names)]
        first = {"exam": folder.name, "person": exam["person"], "body": exam["body"]}
        first |= {"left_out": left_out, "source": source}
        try:
            new = judge_stack(folder, left_out, source, others, output_dir / folder.name / left_out, networks)
        except (Exception, SystemExit) as error:
            failures.append(f"{folder.name}, {left_out} from {source}: {error}")
            continue
        rows = [row for row in rows if (row["exam"], row["left_out"]) != (folder.name, left_out)]
        rows += [{**first, **row, **first} for row in new]
        write_csv(table, rows)
    write_csv(means, summarise(rows))
    if failures:
        raise SystemExit("\n".join(["these could not be judged:", *failures]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    options = parser.parse_args()
    table = Path(__file__).with_suffix(".csv")
    exams = [file.parent for file in sorted(options.exams.glob("*/exam.json"))]
    if not exams:
        parser.error(f"--exams {options.exams}: expected folders with an exam.json, as common.lab.queue.exams writes.")
    judge_stacks(exams, options.output_dir, table, table.with_name("exams_over_cubic.csv"))


if __name__ == "__main__":
    main()
