"""Cases one by one, so that a bad one does not stop the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import list_data_collate

from .datalist import SUBJECT, check_exclusive, check_partners, find, folder, one_each, subject_of
from .volumes import case_name, case_stem, root_cause


@dataclass
class CaseFailure:
    """A case that could not be processed, and why."""

    case: str
    reason: str


class CaseLoader:
    """Batches of one case in a dataset's order; where a case cannot be loaded, its :class:`CaseFailure` instead.

    Args:
        dataset: of dictionaries, with the entries in ``dataset.data``.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        for i, entry in enumerate(self.dataset.data):
            try:
                batch = list_data_collate([self.dataset[i]])
            except Exception as error:
                batch = CaseFailure(case_name(entry), root_cause(error))
            yield batch


def find_images(path: str, output_dir: str | None = None) -> list[dict[str, str]]:
    """Entries for inference: the NIfTI files of a folder, in the order of their names, or one file.

    Args:
        path: a folder, searched with its subfolders, or a file.
        output_dir: a folder whose files are passed over: results are no scans.

    Returns:
        ``[{"image": path}, ...]``.

    Raises:
        FileNotFoundError: when there is no such path, or no NIfTI in the folder.
    """
    root = Path(path)
    if root.is_file():
        return [{"image": str(root)}]
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir '{path}' is neither a folder nor a file; name scans to super-resolve.")
    files = _scans((p for p in root.rglob("*") if not p.name.startswith(".")), output_dir)
    if not files:
        raise FileNotFoundError(f"dataset_dir '{path}' holds no .nii or .nii.gz file, in its subfolders neither.")
    names = [p.name.removesuffix(".gz").removesuffix(".nii") for p in files]
    twice = sorted({str(p) for p, name in zip(files, names, strict=True) if names.count(name) > 1})
    if twice:
        raise ValueError(f"results are named by their inputs, and these have the same name: {', '.join(twice)}")
    return [{"image": str(p)} for p in files]


def find_pairs(
    dataset_dir: str,
    lr: str | Sequence[str],
    guide: str | Sequence[str] | None = None,
    subject: str | None = None,
    output_dir: str | None = None,
) -> list[dict[str, str]]:
    """Entries for inference: the NIfTI files of a folder that match a pattern, each with the guide of its subject.

    One scan and one guide are a pair whatever their names, unless these have two labels ``sub-<label>``.

    Args:
        dataset_dir: folder of the scans; patterns are relative to it.
        lr: glob patterns of LR scans, several separated by commas; ``**`` goes into subfolders.
        guide: glob patterns of guides; default none, scans alone.
        subject: regular expression whose first group, or whole match, in the path is the subject; by default BIDS's
            ``sub-<label>``, else the file's name without extensions.
        output_dir: a folder whose files are passed over: results are no scans.

    Returns:
        ``[{"image": path, "guide": path}, ...]``, in the order of the scans' names; with "subject" where several scans
        have the same file name, because results are named by it.

    Raises:
        FileNotFoundError: no such folder, or no NIfTI that matches.
        ValueError: no pattern of scans, a file that matches both patterns, a scan without guide or a guide without
            scan, two of one subject, or scans whose results would have the same name.
    """
    root = folder(dataset_dir)
    if not lr:
        raise ValueError("no --lr pattern; name the scans to super-resolve, e.g. --lr '*_t2w.nii.gz'.")
    files: dict[str, list[str]] = {}
    for option, patterns in (("lr", lr), ("guide", guide)):
        scans = _scans((root / name for name in find(root, patterns, option)), output_dir)
        files[option] = [p.relative_to(root).as_posix() for p in scans]
        if patterns is not None and not scans:
            raise FileNotFoundError(
                f"no .nii or .nii.gz file matches --{option} '{patterns}' in {root}"
                + ("." if output_dir is None else f", where what lies below output_dir '{output_dir}' is passed over.")
            )
    check_exclusive(files)
    subjects = {name: subject_of(name, subject) for names in files.values() for name in names}
    if guide is None:
        guides = {}
    elif len(files["lr"]) == len(files["guide"]) == 1:
        guides = {files["lr"][0]: files["guide"][0]}
        labels = [found[0] for name in (files["lr"][0], files["guide"][0]) if (found := SUBJECT.search(name))]
        if len(set(labels)) > 1:
            raise ValueError(
                f"the scan {files['lr'][0]} is of {labels[0]} and the guide {files['guide'][0]} of {labels[1]}, "
                "expected the same person; name the guide of this scan."
            )
    else:
        scan_of, guide_of = (one_each(names, subjects, option) for option, names in files.items())
        check_partners(scan_of, guide_of)
        guides = {name: guide_of[key] for key, name in scan_of.items()}
    stems = [case_stem(name) for name in files["lr"]]
    entries, results = [], {}
    for name, stem in zip(files["lr"], stems, strict=True):
        entry = {"image": str(root / name)}
        if guide is not None:
            entry["guide"] = str(root / guides[name])
        if stems.count(stem) > 1:
            entry["subject"] = subjects[name]
        entries.append(entry)
        results.setdefault(case_stem(name, entry.get("subject")), []).append(name)
    twice = [name for names in results.values() if len(names) > 1 for name in names]
    if twice:
        raise ValueError(
            f"results are named by their inputs and subjects, and these have the same: {', '.join(twice)}; say with "
            "--subject, a regular expression, which part of a path is the subject, or narrow --lr."
        )
    return entries


def _scans(files: Iterable[Path], output_dir: str | None) -> list[Path]:
    """Those that are NIfTI and no results, sorted."""
    files = sorted(p for p in files if p.name.endswith((".nii", ".nii.gz")))
    if output_dir is not None:
        files = [p for p in files if Path(output_dir).resolve() not in p.resolve().parents]
    return files


def prepare_lr_hr(
    batchdata: Mapping[str, torch.Tensor], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, torch.Tensor | None] | tuple[torch.Tensor, torch.Tensor | None, tuple, dict]:
    """The ``prepare_batch`` of cases: the scan is the input, HR the truth, and a guide the network's second input.

    Args:
        batchdata: with the scan as "lr", or where there is none as "image"; "hr" and "guide" may be there or not.
        device: where the volumes go.
        non_blocking: as for ``torch.Tensor.to``.

    Returns:
        The scan and HR, which is None where it is not known; with a guide also ``(guide,)`` and ``{}``, which are
        further arguments of the network.
    """

    def moved(key: str) -> torch.Tensor | None:
        return batchdata[key].to(device, non_blocking=non_blocking) if key in batchdata else None

    pair = moved("lr" if "lr" in batchdata else "image"), moved("hr")
    return (*pair, (moved("guide"),), {}) if "guide" in batchdata else pair


def check_scale(source: Sequence[Mapping], target: Sequence[Mapping], factors: Sequence[int], slab_axis: str) -> None:
    """Refuse authentic LR scans whose voxels are not ``factors`` times as large as the HR scans'.

    Args:
        source: entries with "hr".
        target: entries, of which those with "lr" are checked against the median HR spacing, within 20 %.
        factors: of the super-resolution, in the order of the axes after :class:`common.transforms.SlabAxisd`.
        slab_axis: as for :class:`common.transforms.SlabAxisd`.

    Raises:
        ValueError: with every file that contradicts, its spacing and the expected one.
    """
    lr = {}
    hr = []
    for entry in [*source, *target]:
        for key, found in (("hr", hr), ("lr", lr)):
            mm = _spacing(entry[key], slab_axis) if key in entry else None
            if mm is not None:
                hr.append(mm) if found is hr else lr.update({entry[key]: mm})
    if not lr or not hr:
        return
    expected = np.median(hr, axis=0) * np.asarray(factors)
    wrong = [f"{p}: {np.round(mm, 3).tolist()} mm" for p, mm in lr.items() if (abs(mm / expected - 1) > 0.2).any()]
    if wrong:
        raise ValueError(
            f"the scale factor {list(factors)} and the median spacing of the HR scans ask for LR voxels of about "
            f"{np.round(expected, 3).tolist()} mm (axes ordered for slab_axis {slab_axis}), but found:\n  "
            + "\n  ".join(wrong)
            + "\nSet scale to the ratio that your scans have, or resample them."
        )


def in_plane_spacing(entries: Sequence[Mapping], slice_axis: str) -> list[float]:
    """Median spacing of the HR scans in plane.

    Args:
        entries: with "hr"; files that cannot be read are passed over, and reported when the volumes are loaded.
        slice_axis: as for :class:`common.transforms.SlabAxisd`.

    Returns:
        Two numbers in mm, in the order of the axes after :class:`common.transforms.SlabAxisd`.

    Raises:
        ValueError: when a scan's spacing is off the median by more than 5 %: kernels are counted in HR voxels.
    """
    spacing = {entry["hr"]: found for entry in entries if (found := _spacing(entry["hr"], slice_axis)) is not None}
    if not spacing:
        return [1.0, 1.0]
    median = np.median(list(spacing.values()), axis=0)[:2]
    wrong = [
        f"{p}: {np.round(mm[:2], 3).tolist()} mm" for p, mm in spacing.items() if abs(mm[:2] / median - 1).max() > 0.05
    ]
    if wrong:
        raise ValueError(
            f"the HR scans' median in-plane spacing is {np.round(median, 3).tolist()} mm, expected of all of them to "
            "5 %, but found:\n  " + "\n  ".join(wrong) + "\nResample them, or leave them out."
        )
    return [float(mm) for mm in median]


def thin_slice_spacing(entries: Sequence[Mapping], slice_axis: str, scale: int) -> list[float]:
    """Median spacing of the HR grid that super-resolution across slices leads to.

    Args:
        entries: of MR; with "lr", thick slices, else with "hr", thin ones. Files that cannot be read are passed over,
            and reported when the volumes are loaded.
        slice_axis: axis across the slices, "LR", "AP" or "SI", as from :func:`slice_axis_of`.
        scale: HR slices per LR slice.

    Returns:
        Three numbers in mm, in the order of the axes after :class:`common.transforms.SlabAxisd`, slices last; 1 each
        when no file can be read.

    Raises:
        ValueError: when a scan's grid is off the median by more than 20 % on an axis.
    """
    grids = {}
    for entry in entries:
        path, finer = (entry["lr"], [1, 1, scale]) if "lr" in entry else (entry["hr"], 1)
        mm = _spacing(path, slice_axis)
        if mm is not None:
            grids[path] = mm / finer
    if not grids:
        return [1.0, 1.0, 1.0]
    median = np.median(list(grids.values()), axis=0)
    wrong = [f"{p}: {np.round(mm, 3).tolist()} mm" for p, mm in grids.items() if (abs(mm / median - 1) > 0.2).any()]
    if wrong:
        raise ValueError(
            f"super-resolution by {scale} across slices (slice_axis {slice_axis}) leads to a median HR grid of "
            f"{np.round(median, 3).tolist()} mm, expected of all scans to 20 %, but found:\n  "
            + "\n  ".join(wrong)
            + "\nResample these scans, or leave them out."
        )
    return [float(mm) for mm in median]


def slice_axis_of(entries: Sequence[Mapping], slice_axis: str) -> str:
    """The anatomical axis across the slices of all scans, for volumes too whose own spacing does not tell it.

    Args:
        entries: with "lr", whose scan counts where there is one, or "hr". Files that cannot be read are passed over,
            and reported when the volumes are loaded.
        slice_axis: "LR", "AP" or "SI"; or "auto", as the scans' spacing shows it (those which do not show it, such as
            isotropic ones, follow the others).

    Returns:
        "LR", "AP" or "SI"; where no file can be read "SI".

    Raises:
        ValueError: when scans have different axes, or none shows it, with the files.
    """
    from ..transforms import slab_permutation

    if slice_axis != "auto":
        return slice_axis
    found: dict[str, str] = {}
    unclear: list[str] = []
    for path in (entry["lr"] if "lr" in entry else entry["hr"] for entry in entries):
        try:
            affine = nib.load(path).affine
            order = slab_permutation(affine, "auto", "slice_axis")
            found[path] = next(axis for axis in ("LR", "AP", "SI") if slab_permutation(affine, axis) == order)
        except ValueError as error:
            unclear.append(f"{path}: {error}")
        except Exception:
            continue  # a file that cannot be read is reported, with the others, when the volumes are loaded
    if len(set(found.values())) > 1:
        raise ValueError(
            "slice_axis is 'auto', expected the same axis across slices in all scans, but found:\n  "
            + "\n  ".join(f"{path}: {axis}" for path, axis in found.items())
            + "\nTrain on one of them: leave the others out, or say the axis, for example --slice_axis SI."
        )
    if unclear and not found:
        raise ValueError("slice_axis is 'auto', but no scan shows it:\n  " + "\n  ".join(unclear))
    return next(iter(found.values()), "SI")


def as_lr(entries: Sequence[Mapping]) -> list[dict]:
    """Entries as LR scans: the LR scans alone; where there is none at all, the HR scans, to be degraded."""
    authentic = [{k: v for k, v in entry.items() if k != "hr"} for entry in entries if "lr" in entry]
    return authentic or [dict(entry) for entry in entries]


def _spacing(path: str, slab_axis: str) -> np.ndarray | None:
    """Of a file, in the order of the axes after SlabAxisd; None where it cannot be read."""
    from ..transforms import slab_permutation

    try:
        affine = nib.load(path).affine
        return np.linalg.norm(affine[:3, :3], axis=0)[list(slab_permutation(affine, slab_axis))]
    except Exception:
        return None  # a file that cannot be read is reported, with the others, when the volumes are loaded
