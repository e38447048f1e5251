"""``python -m common super-resolve``: super-resolve scans, each with the weights that suit it."""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import tempfile
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Modules that compute are imported only when needed, so that --help is quick.
if TYPE_CHECKING:
    from ..io.dicom import Series
    from ..weights_catalogue import Choice, Offer

_RESULTS = "super_resolved"  # folder of results where none is named
_STACKS = "stacks"  # the bundle that combines several


def super_resolve(
    *paths: str,
    output_dir: str | None = None,
    together: bool | str = False,
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
    dry_run: bool = False,
    **override,
) -> None:
    """Super-resolve scans in files and DICOM series, each with the weights that suit its voxel sizes.

    The weights are chosen by voxel sizes. If several fit, those that make the voxels most nearly cubic are used. The
    choice is printed. If none fit, the nearest weights are used with a warning, up to a limit. A scan beyond this
    limit fails, and the message says what would do. Each result is <name>_sr.nii.gz. A DICOM series also gets a
    derived series in <name>_dicom. A 4-D scan is done volume by volume, and its result has all volumes. Under torchrun
    each process takes its share of the scans.

    --together combines several thick stacks of one exam into one volume. Its voxels are cubic, and its axes are those
    of the first stack. A stack that does not fit the first is left out with a warning.

    Every file that looks like a scan is super-resolved, or listed with its reason. In a folder, images that are no
    magnitude MR images (masks, label maps, phase, maps, PET, CT) are skipped with a line. They are refused if they are
    named. The exit code is 0 when every scan is done, whatever was skipped, else 1.

    Args:
        paths: a scan (NIfTI, .mgz, .hdr and .img, AFNI, NRRD, MetaImage), a DICOM file of a series, or a folder of
            these, with its subfolders. The folder of the results may follow. With --together all paths are stacks.
        output_dir: default the folder super_resolved next to the file, or in the folder.
        together: whether the scans are stacks of one exam. auto finds the stacks in a folder: those of one subject,
            contrast and frame of reference. The other scans are super-resolved alone.
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
        report: whether to write an HTML page for each result.
        dry_run: whether only to print what would be done with each scan, and its warnings; nothing is written.
        override: keys of a bundle's inference.json, for example --slice_axis SI, --device cpu or --evaluator#amp True.
            A bundle without this key ignores it, with a line. For --checkpoint FILE.pt the overlay FILE.json is used
            too.

    Raises:
        FileNotFoundError: when there is no such path, or no scan in it.
        ValueError: when an option does not fit.
        RunsFailedError: when scans failed, or cannot be read; the others are done.
    """
    from ..startup import import_monai

    import_monai()
    from ..errors import RunsFailedError
    from ..io.files import check_writable
    from ..io.images import missing_content
    from ..io.naming import by_name
    from ..runtime.distributed import gathered, join, rank, say

    # MONAI's messages about its set-up, and about a decoder for CUDA, say nothing about a scan.
    for module in ("monai.bundle.workflows", "monai.data.nvimgcodec_pydicom_plugin"):
        logging.getLogger(module).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    stacks = _known_together(bundle, scale, acquired_matrix, override) if together else None
    known = _known(bundle, scale, override if together is not True else {}, together)
    if together not in (True, False, "auto"):
        raise ValueError(f"--together is {together!r}, expected nothing after it, or auto; name the scans before it.")
    if not paths:
        raise ValueError("no scan is named; give a scan, a DICOM file of a series, or a folder.")
    if together is not True and output_dir is None and len(paths) == 2:
        paths, output_dir = paths[:1], paths[1]  # type: ignore[misc]
    if len(paths) > 1 and together is not True:
        raise ValueError(
            f"found {len(paths)} scans ({', '.join(paths)}), expected one, or a folder; stacks of one exam are "
            "combined with --together."
        )
    roots = [Path(path).expanduser() for path in paths]
    for path, root in zip(paths, roots, strict=True):
        if not root.exists():
            hint = " With --together the folder of the results is --output_dir." if together is True else ""
            raise FileNotFoundError(f"{path}: {missing_content(root) or 'there is no such file or folder.'}{hint}")
    output = Path(output_dir).expanduser() if output_dir else _folder_of(roots[0]) / _RESULTS
    with tempfile.TemporaryDirectory(prefix="super_resolve-") as temporary:
        jobs = [job for root in roots for job in _found(root, guide, subject, label, Path(temporary))]
        if together:
            jobs = _together(jobs, together)
        _as_acquired(jobs, acquired_matrix)
        _choose_together(jobs, stacks)
        _choose(
            jobs, known, guide is not None, asked=bundle is not None or scale is not None or "checkpoint" in override
        )
        jobs = _own(jobs, output, skip_existing, shard, bids)
        _check_room(jobs, output)
        if not dry_run:
            check_writable(output)
        if not jobs:
            print("no scans to do", flush=True)
        elif not dry_run:
            say(f"results go to {output}")
        for group in _groups(jobs):
            _tell(group, [*override])
            _convert(group)
            if dry_run:
                _look(group, output, bids)
            else:
                own = {"dataset#shard": shard, "dataset#bids": bids, "evaluator#report": report}
                _run(group, output, bids, **{key: value for key, value in own.items() if value})
    join()
    every = gathered(
        [(job.entry.get("source", job.entry["image"]), job.problem and by_name(job.problem, job.entry)) for job in jobs]
    )
    failures = [f"{image}: {problem.removeprefix(f'{image}: ')}" for image, problem in every if problem]
    if failures:
        if rank()[0] > 0:
            raise SystemExit(1)  # the first process says what failed
        cannot = (
            "could not be done"
            if dry_run
            else "failed" + (", the others are done" if len(failures) < len(every) else "")
        )
        raise RunsFailedError("\n  ".join([f"{len(failures)} of {len(every)} scans {cannot}:", *failures]))


@dataclass
class _Job:
    """A scan, or the first stack of an exam with the others; what to do with it; and how it ended."""

    entry: dict[str, Any]
    series: Series | Any = None
    choice: Choice | Any = None
    problem: str | None = None
    others: list[_Job] = field(default_factory=list)


def _known_together(
    bundle: str | None,
    scale: Sequence[int] | None,
    matrix: Sequence[int] | str | None,
    override: dict[str, Any],
) -> Offer:
    """Return the offer of the bundle that combines the stacks of an exam."""
    from ..weights_catalogue import offers

    given = {"scale": scale, "acquired_matrix": matrix} | ({} if bundle == _STACKS else {"bundle": bundle})
    if names := [f"--{name}" for name, value in given.items() if value is not None]:
        raise ValueError(
            f"--together goes without {' and '.join(names)}: the bundle {_STACKS} does it, for voxels of any size."
        )
    # The overlay of model.pt; the bundle finds the other weights itself.
    return offers(_STACKS, override, [*inspect.signature(super_resolve).parameters])[0]


def _known(
    bundle: str | None, scale: Sequence[int] | None, override: dict[str, Any], together: bool | str
) -> list[Offer]:
    """Return the weights to choose from for single scans."""
    from ..weights_catalogue import offers

    if together is True:
        return []
    if together:  # keys that only the stacks bundle has do not apply here
        override = {
            key: value
            for key, value in override.items()
            if any(offer.bundle.name != _STACKS for offer in offers(None, {key: value}))
        }
    known = offers(bundle, override, [*inspect.signature(super_resolve).parameters])
    if any(offer.bundle.name == _STACKS for offer in known):
        asked = " and ".join(f"--{name}" for name in (override if bundle is None else ["bundle stacks"]))
        raise ValueError(f"{asked}: that is for stacks of one exam; name them all, with --together.")
    if scale is None:
        return known
    known = [offer.at(scale) for offer in known]
    scales = [list(other) for other in sorted({offer.scale for offer in known if offer.there})]
    if list(scale) not in scales:
        raise ValueError(f"--scale is {scale}, expected a scale of the weights here: {scales}.")
    return [offer for offer in known if list(offer.scale) == list(scale)]


def _folder_of(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _found(root: Path, guide: str | None, subject: str | None, label: str | None, temporary: Path) -> list[_Job]:
    """Return the jobs, named. DICOM series are named as the NIfTI files that they will be converted to."""
    from ..data import find_scans, named

    series = _series(root)
    scans: list[dict[str, str]] = []
    if root.is_dir() or not series:
        try:
            scans = find_scans(root, guide, subject, label)
        except FileNotFoundError as error:
            if not series:  # a folder of DICOM may have no other scans
                text = str(error).removeprefix("dataset_dir ").replace("no scan", "no scan and no DICOM series of one")
                raise FileNotFoundError(text) from None
        except ValueError:
            if not series:  # a folder of DICOM may have no other scans than results
                raise
    files = [_folder_of(root) / _uid(each) / f"{_label(each)}.nii.gz" for each in series]
    entries = named([*scans, *({"image": str(file)} for file in files)], _folder_of(root))
    jobs = [_Job(entry, problem=entry.pop("problem", None)) for entry in entries]
    for job, each, file in zip(jobs[len(scans) :], series, files, strict=True):
        job.series = each
        job.entry["image"] = str(temporary / file.parent.name / file.name)
        folder = f"{each.files[0].parent} (DICOM series {_uid(each)})" if each.files else each.description
        job.entry["source"] = folder
        job.problem = job.problem or (f"{each.description}: {each.problem}" if each.problem else None)
        if guide is not None:
            job.problem = f"{each.description}: guides are for NIfTI; convert the series, or leave --guide out."
        if label is not None and job.problem is None:
            if len(jobs) > 1 or not Path(label).expanduser().is_file():
                job.problem = f"{each.description}: with --label, name this series alone and the file of its label map."
            job.entry["label_map"] = label
    return jobs


def _series(root: Path) -> list[Series]:
    """Return the DICOM series of a folder, or the series of one file, without results of this command.

    A series that is no scan is skipped. If the file that is named holds nothing else, this is its problem.
    """
    from ..data.lists.datalist import files_below
    from ..data.lists.scans import absent_images
    from ..io.scan_kinds import may_be_dicom, named_as_dicom, say_passed_over
    from ..runtime.distributed import say

    files = [root] if root.is_file() else [root / name for name in files_below(root)]
    if not any(named_as_dicom(file) or may_be_dicom(file) for file in files) and not absent_images(files):
        return []
    from ..io.dicom import find_series

    found = find_series(_folder_of(root))
    scans = [each for each in found if not _is_result(each)]
    if len(scans) < len(found):
        say(f"{len(found) - len(scans)} of {len(found)} DICOM series are results of super-resolution: passed over")
    if root.is_file():
        scans = [each for each in scans if root.resolve() in [file.resolve() for file in each.files]]
        if all(each.no_scan for each in scans):
            return [replace(each, problem=each.no_scan) for each in scans]
    say_passed_over({each.description: each.no_scan for each in scans if each.no_scan})
    return [each for each in scans if not each.no_scan]


def _is_result(series: Series) -> bool:
    """Whether a series is one that :func:`common.io.dicom.write_derived` wrote."""
    from ..io.dicom import is_derived

    return any(is_derived(header) for header in series.headers)


def _uid(series: Series) -> str:
    return str(series.headers[0].SeriesInstanceUID) if series.headers else "damaged"


def _label(series: Series) -> str:
    """A name for the files of a series."""
    header: Any = series.headers[0] if series.headers else {}
    words = [*(str(header.get(key) or "") for key in ("SeriesNumber", "SeriesDescription")), series.part]
    return re.sub("[^A-Za-z0-9]+", "_", " ".join(words)).strip("_") or "series"


def _together(jobs: Sequence[_Job], together: bool | str) -> list[_Job]:
    """Return a job for each exam with its stacks; with ``auto`` also for scans that have no other stack."""
    from ..data.lists.exams import grouped

    groups = [[*jobs]] if together is True else grouped(jobs, _exam)
    return [group[0] if len(group) == 1 and together is not True else _joined(group) for group in groups]


def _exam(job: _Job) -> Hashable:
    """What the stacks of one exam have in common."""
    from ..data.lists.exams import exam_of

    if job.series is None:
        return exam_of(job.entry["image"])
    if not job.series.headers:
        return job.entry["image"]
    from ..io.dicom import weighting

    header = job.series.headers[0]
    return header.StudyInstanceUID, header.get("FrameOfReferenceUID"), weighting(header)


def _joined(stacks: Sequence[_Job]) -> _Job:
    """Return the job of an exam, without the stacks that have a problem."""
    from ..data.lists.exams import joined

    for job in stacks:
        if job.problem is None:
            with _problem_of(job):
                _grid(job)
    good = [job for job in stacks if job.problem is None]
    files = [str(Path(job.entry["image"]).resolve()) for job in good]
    if twice := [_named(job) for i, job in enumerate(good) if files[i] in files[:i]]:
        return _Job(stacks[0].entry, problem=f"{twice[0]}: named twice; name each stack once.")
    reasons = [job.problem for job in stacks if job.problem is not None]
    if len(good) < 2 and not (good and "guide" in good[0].entry):
        found = f"found {len(good)} stack{'s' * (len(good) != 1)} that can be read"
        found += ", expected at least two to combine, or one with --guide"
        problem = "; ".join([found, *reasons])
        return _Job(stacks[0].entry, problem=f"{_named(stacks[0])}: {problem}")
    entry = joined([job.entry for job in good])
    first, *others = map(_named, good)
    entry["sources"] = [first, *([entry["guide"]] if "guide" in entry else []), *others]
    entry["warnings"] = [f"left out: {reason}" for reason in reasons]
    return _Job(entry, series=good[0].series, others=good[1:])


def _named(job: _Job) -> str:
    """A scan's file, or its series."""
    return job.entry.get("source", job.entry["image"])


def _as_acquired(jobs: Sequence[_Job], matrix: Any) -> None:
    """Give each entry its acquired matrix, if it is asked for."""
    from ..transforms.scan.acquired import stated_matrix

    given = isinstance(matrix, list | tuple) and len(matrix) == 3 and all(isinstance(n, int) and n > 1 for n in matrix)
    if not given and matrix not in (None, "header"):
        raise ValueError(
            f"--acquired_matrix is {matrix!r}, expected header, or three numbers of voxels along the axes of the file, "
            'such as "[256,205,44]".'
        )
    for job in jobs if matrix else ():
        if job.problem:
            continue
        with _problem_of(job):
            job.entry["image_matrix"] = [*matrix] if given else stated_matrix(_said(job), _grid(job)[1])


def _said(job: _Job) -> dict[str, Any]:
    """Return what DICOM headers, or the sidecar JSON, say about how a scan was acquired."""
    if job.series is None:
        from ..io.files import read_sidecar

        return read_sidecar(job.entry["image"])[0]
    from ..io.dicom import said_by_dicom

    return said_by_dicom(job.series.headers)


def _choose_together(jobs: Sequence[_Job], offer: Offer | Any) -> None:
    """Give each exam's job the bundle that combines stacks."""
    import numpy as np

    from ..weights_catalogue import Choice

    spacing = None if offer is None else offer.overrides.get("spacing")
    if spacing is not None and not (isinstance(spacing, int | float) and 0 < spacing):
        raise ValueError(f"--spacing is {spacing!r}, expected mm above 0, for example --spacing 0.8.")
    for job in jobs:
        if "stacks" in job.entry and job.problem is None:
            with _problem_of(job):
                sizes = [np.linalg.norm(_grid(stack)[0][:3, :3], axis=0) for stack in (job, *job.others)]
                voxel = spacing or min(float(size.min()) for size in sizes)
                job.choice = Choice(offer, "auto", (tuple(sizes[0]), (voxel,) * 3), excess=1.0, doubt=None)


def _choose(jobs: Sequence[_Job], known: Sequence[Offer], guided: bool, asked: bool) -> None:
    """Give each job its weights or its problem. Weights that the user asked for are used for any scan."""
    from ..runtime.distributed import say
    from ..transforms.scan.acquired import acquired_affine
    from ..weights_catalogue import choose

    there = [offer for offer in known if offer.there and (asked or any(offer.ranges))]
    for offer in known:
        if offer.there and offer not in there:
            say(
                f"{offer.name} is not considered: {offer.overrides['checkpoint']} does not say on which voxel sizes it "
                f"was trained. Use it by --bundle {offer.bundle.name}, or let training-range write them."
            )
    missing = [offer for offer in known if not offer.there]
    for job in jobs:
        if job.problem or job.choice:
            continue
        with _problem_of(job):
            affine, shape = _grid(job)
            if "image_matrix" in job.entry:
                affine = acquired_affine(affine, shape, job.entry["image_matrix"])
            choices = choose(affine, there, guided)
            good = [choice for choice in choices if asked or choice.doubt is None]
            if good:
                job.choice = good[0]
            else:
                trained: list[Choice] = []
                with contextlib.suppress(ValueError):  # they are only a hint
                    trained = choose(affine, missing, guided)
                job.problem = _reason(affine, choices, trained, guided, [] if there else missing)


def _grid(job: _Job) -> tuple[Any, tuple[int, ...]]:
    """Return the affine and shape of a scan.

    Raises:
        ValueError: when it cannot be read, or its voxels have no position.
    """
    from ..io.images import open_image
    from ..transforms.scan.check import check_affine

    if job.series is not None:
        first = job.series.headers[0]
        return job.series.affine, (first.Columns, first.Rows, len(job.series.headers))
    path = job.entry["image"]
    image = open_image(path)
    check_affine(path, image.affine)
    return image.affine, image.shape[:3]


def _reason(
    affine: Any, choices: Sequence[Choice], trained: Sequence[Choice], guided: bool, missing: Sequence[Offer]
) -> str:
    """Return why no weights can be chosen, and what to do; ``missing`` are bundles that were asked for by name."""
    from ..weights_catalogue import in_words, learn_from_scan

    if missing:
        docs = ", ".join(str(offer.bundle / "docs" / "README.md") for offer in missing)
        names = " and ".join(offer.bundle.name for offer in missing)
        return f"there are no weights of {names} here. Train them, as {docs} says, and give --checkpoint FILE."
    if not choices:
        also = "leave --guide out, or name another --bundle" if guided else "name another --bundle, or give a --guide"
        return f"there are no weights for scans {'with a guide' if guided else 'without a guide'}; {also}."
    nearest = choices[0]
    text = (
        f"no weights here suit voxels of {in_words(nearest.spacing[0])}; of the nearest, {nearest.offer.name}, "
        f"{nearest.doubt}."
    )
    for choice in learn_from_scan(affine, guided):
        name = choice.offer.bundle.name
        text += (
            f" {name} needs none, as it learns from the scan, and would make voxels of {in_words(choice.spacing[1])}: "
            f"say --bundle {name}."
        )
    before = max(nearest.spacing[0]) / min(nearest.spacing[0])
    better = [choice for choice in trained if choice.anisotropy < 0.9 * before]
    if better:
        best = min(better, key=lambda choice: choice.anisotropy)
        text += (
            f" {best.offer.name} would make them {in_words(best.spacing[1])}, but has to be trained first: see "
            f"{best.offer.bundle / 'docs' / 'README.md'}."
        )
    return f"{text} To use {nearest.offer.name} nonetheless, say --bundle {nearest.offer.bundle.name}."


def _own(jobs: Sequence[_Job], output: Path, skip_existing: bool, shard: str | None, bids: bool) -> list[_Job]:
    """The jobs that this process does."""
    from ..data.lists.sharding import is_whole, own_share
    from ..io.images import open_image
    from ..io.inputs import describe_inputs
    from ..io.naming import label_path
    from ..io.provenance import is_made_by

    entries = [
        {**job.entry, "index": i, **({"problem": job.problem} if job.problem else {})} for i, job in enumerate(jobs)
    ]

    def describe(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        job = jobs[entry["index"]]
        _convert([job])
        if job.problem:
            raise ValueError(job.problem)
        return describe_inputs(job.entry)

    def is_done(entry: Mapping[str, Any], path: Path) -> bool:
        job = jobs[entry["index"]]
        return (
            is_whole(path)
            and ("label_map" not in job.entry or is_whole(label_path(output, job.entry["name"], bids)))
            and (job.series is None or len([*_derived(job, output).glob("*/*.dcm")]) == open_image(path).shape[2])
            and (job.choice is None or is_made_by(path, job.choice.offer.bundle, job.choice.offer.checkpoint))
        )

    own = own_share(entries, output, skip_existing, shard, bids, describe, is_done)
    for entry in own:
        jobs[entry["index"]].problem = entry.get("problem")
    return [jobs[entry["index"]] for entry in own]


def _check_room(jobs: Sequence[_Job], output: Path) -> None:
    """Give jobs a problem if their results cannot be written for lack of room."""
    import math

    from ..io.files import check_room
    from ..io.volumes import count_volumes

    files = 0.0
    for job in jobs:
        if job.problem is None:
            before, after = map(math.prod, job.choice.spacing)
            stored = [job.entry["image"]] if job.series is None else job.series.files
            volumes = 1 if job.series else count_volumes(job.entry["image"])
            voxels = math.prod(_grid(job)[1]) * volumes
            # A compressed result has about as many bytes a voxel as a compressed scan. Half of it is certainly needed.
            size = min(sum(Path(file).stat().st_size for file in stored), voxels) * before / after / 2
            # The results of volumes are there until they are joined; a derived series has 2 bytes a voxel.
            files += size * (1 + (volumes > 1)) + (2 * voxels * before / after if job.series else 0)
            with _problem_of(job):
                check_room(output, size, files)


def _derived(job: _Job, output: Path) -> Path:
    """Folder of the derived series that are made of a job's series."""
    return output / f"{job.entry['name']}_dicom"


def _groups(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Group jobs into runs: jobs with the same weights together; each DICOM series and each 4-D scan alone."""
    of_weights: dict[tuple, list[_Job]] = {}
    for job in jobs:
        if job.problem is None:
            offer = job.choice.offer
            converted = any(stack.series is not None for stack in (job, *job.others)) or _has_volumes(job)
            series = job.entry["name"] if converted else None
            key = (offer.bundle, offer.overrides.get("checkpoint"), offer.scale, job.choice.slice_axis, series)
            of_weights.setdefault(key, []).append(job)
    yield from of_weights.values()


def _tell(group: Sequence[_Job], options: Sequence[str]) -> None:
    """Print which weights were chosen for which scans, one line for each spacing, and options that they ignore."""
    from ..weights_catalogue import WITHIN, in_words

    of_spacing: dict[str, list[_Job]] = {}
    for job in group:
        before, after = map(in_words, job.choice.spacing)
        of_spacing.setdefault(f"{before} to {after}", []).append(job)
    for spacing, jobs in of_spacing.items():
        names = ", ".join(job.entry["name"] for job in jobs[:3]) + (
            f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
        )
        choice = jobs[0].choice
        title = choice.offer.name
        if "stacks" in jobs[0].entry:
            number = 1 + len(jobs[0].others)
            title, names = choice.offer.bundle.name, f"{names} ({number} stack{'s' * (number > 1)} each)"
        beyond = f"; {choice.excess:.2f} times outside of the weights' voxel sizes" if choice.excess > WITHIN else ""
        print(f"{title}, {spacing}: {names}{beyond}", flush=True)
    offer = group[0].choice.offer
    if ignored := [f"--{option}" for option in options if option not in offer.overrides]:
        print(f"  {offer.bundle.name} does not know {', '.join(ignored)}, which changes nothing here", flush=True)
    if "checkpoint" not in offer.overrides:
        print(
            f"  {offer.bundle.name} learns from each scan first, which takes minutes; it says how many soon after it "
            "has begun",
            flush=True,
        )


def _convert(group: Sequence[_Job]) -> None:
    """Write the NIfTI file of a DICOM series; its warnings go to the entry."""
    for job in group:
        for stack in (job, *job.others):
            if stack.series is not None:
                _convert_one(stack, job)


def _convert_one(stack: _Job, job: _Job) -> None:
    """Write the NIfTI file of a series of a job, unless it is there, and describe the series as an input."""
    from ..io.dicom import describe_series, to_nifti

    path = Path(stack.entry["image"])
    inputs = job.entry.setdefault("inputs", {})
    if str(path) in inputs:  # it was compared with a result that is there
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _problem_of(job), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        to_nifti(stack.series, path)
        inputs[str(path)] = describe_series(stack.series, path)
        own = f"series {_uid(stack.series)}: "
        texts = [str(each.message).removeprefix(own) for each in caught]
        job.entry.setdefault("warnings", []).extend(f"{stack.entry['name']}: {text}" for text in texts)


def _run(group: Sequence[_Job], output: Path, bids: bool, **options: Any) -> None:
    """Super-resolve scans by their bundle's workflow, and write the derived series of DICOM."""
    jobs = [job for job in group if job.problem is None]
    if not jobs:
        return
    if _has_volumes(jobs[0]):
        return _run_volumes(jobs[0], output, bids, **options)
    from ..engines.evaluator import CasesFailedError
    from ..errors import first_cause
    from ..io.naming import root_cause

    workflow = _workflow(jobs, output, **options)
    by_image = {job.entry["image"]: job for job in jobs}
    try:
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    except Exception as error:
        cause = first_cause(error)
        if isinstance(cause, CasesFailedError):
            for failure in cause.failures:
                by_image[failure.case].problem = failure.reason
        else:
            for job in jobs:
                job.problem = root_cause(error)
    for job in jobs:
        if job.series is not None and job.problem is None:
            with _problem_of(job):
                _write_derived(job, workflow.parser, output, bids)


def _has_volumes(job: _Job) -> bool:
    """Whether a job's scan is a 4-D image, whose volumes are done one by one."""
    from ..io.volumes import count_volumes

    return job.series is None and "stacks" not in job.entry and count_volumes(job.entry["image"]) > 1


def _volumes(job: _Job, folder: Path) -> list[_Job]:
    """Write the volumes of a 4-D scan into a folder, and give each a job, with the warnings about the scan.

    The label map goes with the first volume.
    """
    from ..io.inputs import describe_inputs
    from ..io.provenance import source_of
    from ..io.volumes import split_volumes
    from ..transforms.scan.check import check_header

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        check_header(Path(job.entry["image"]), volumes=True)
        files = split_volumes(job.entry["image"], folder)
    texts = [*job.entry.get("warnings", ()), *(str(each.message) for each in caught)]
    described, *_ = describe_inputs(job.entry)
    entry = {"source": source_of(job.entry["image"]), **job.entry, "warnings": texts}
    entry["inputs"] = {str(file): described for file in files}
    width = len(str(len(files)))
    volumes = []
    for i, file in enumerate(files, 1):
        own = {**entry, "image": str(file), "name": f"{entry['name']}_volume_{i:0{width}d}"}
        volumes.append(replace(job, entry=own))
        entry.pop("label_map", None)
    return volumes


def _raise_first(job: _Job, volumes: Sequence[_Job]) -> None:
    """Raise the first problem of a volume as one of its scan."""
    from ..io.naming import without_name

    for i, volume in enumerate(volumes, 1):
        if volume.problem is not None:
            reason = without_name(volume.problem, volume.entry)
            raise ValueError(f"{job.entry['image']}: volume {i} of {len(volumes)}: {reason}")


def _run_volumes(job: _Job, output: Path, bids: bool, **options: Any) -> None:
    """Super-resolve each volume of a 4-D scan, and join the results if none failed."""
    from ..handlers.results import log_joined, log_path
    from ..io.provenance import bundle_of, describe_dataset
    from ..io.volumes import join_results
    from ..transforms.scan.load import check_volume

    options.pop("dataset#bids", None)
    shard, path = options.get("dataset#shard"), None
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=output) as part:
        results = Path(part) / "results"
        with _problem_of(job):
            if bids:
                describe_dataset(output, bundle_of(job.choice.offer.bundle), [job.entry["image"]])
            volumes = _volumes(job, Path(part))
            for volume in volumes:
                with _problem_of(volume):
                    check_volume(volume.entry["image"])
            _raise_first(job, volumes)
            _run(volumes, results, bids=False, **options)
            _raise_first(job, volumes)
            names = [volume.entry["name"] for volume in volumes]
            path = join_results(results, names, job.entry["image"], output, job.entry["name"], bids)
            print(f"{job.entry['name']} -> {path}, {len(volumes)} volumes", flush=True)
        log_joined(log_path(results, shard), log_path(output, shard), job.entry, path, job.problem)


def _look_at_volumes(job: _Job, output: Path, bids: bool) -> None:
    """Check each volume of a 4-D scan, and say what would be done."""
    with tempfile.TemporaryDirectory() as folder, _problem_of(job):
        volumes = _volumes(job, Path(folder))
        for volume in volumes:
            volume.entry["name"] = job.entry["name"]
        _look(volumes, output, bids)
        _raise_first(job, volumes)


def _write_derived(job: _Job, parser: Any, output: Path, bids: bool) -> None:
    from ..io.dicom import write_derived
    from ..io.naming import result_path

    network = parser.get_parsed_content("evaluator").network
    # A method that learned from the scan itself has no file of weights.
    bundle = {**parser["_meta_"], "sha256": getattr(network, "origin", {}).get("file_sha256", "unknown")}
    result = result_path(output, job.entry["name"], bids=bids)
    print(f"{job.entry['name']} -> {write_derived(job.series, result, _derived(job, output), bundle)}", flush=True)


def _look(group: Sequence[_Job], output: Path, bids: bool) -> None:
    """Load scans and check them as their bundle's workflow does, and say what would be done."""
    from ..data import CaseFailure, CaseLoader
    from ..io.naming import by_name, label_path, result_path, root_cause, without_name

    jobs = [job for job in group if job.problem is None]
    if not jobs:
        return
    if _has_volumes(jobs[0]):
        return _look_at_volumes(jobs[0], output, bids)
    said: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory() as nowhere:
        workflow = _workflow(jobs, Path(nowhere))
        try:
            workflow.initialize()
            workflow.parser.get_parsed_content("evaluator")
            batches = iter(CaseLoader(workflow.parser.get_parsed_content("dataset")))
        except Exception as error:
            for job in jobs:
                job.problem = root_cause(error)
            return
        for job in jobs:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                batch = next(batches)
            if isinstance(batch, CaseFailure):
                job.problem = batch.reason
                continue
            path = str(result_path(output, job.entry["name"], bids=bids))
            if "label_map" in job.entry:
                path += f" and {label_path(output, job.entry['name'], bids)}"
            texts = [*job.entry.get("warnings", ()), *(str(warning.message) for warning in caught)]
            texts = [f"  warning: {by_name(without_name(text, job.entry), job.entry)}" for text in texts]
            for line in (f"would write {path}", *texts):
                # Numbers in further lines differ between volumes.
                if (key := (path, line.partition("\n")[0])) not in said:
                    print(line, flush=True)
                said.add(key)


def _workflow(jobs: Sequence[_Job], output: Path, **further: Any) -> Any:
    choice = jobs[0].choice
    if choice.slice_axis != choice.offer.slice_axis:
        further["slice_axis"] = choice.slice_axis
    return choice.offer.workflow([job.entry for job in jobs], output_dir=output, **further)


@contextlib.contextmanager
def _problem_of(job: _Job) -> Iterator[None]:
    """Record an error as the job's problem, so that the other jobs go on."""
    from ..io.naming import root_cause

    try:
        yield
    except Exception as error:
        job.problem = root_cause(error)
