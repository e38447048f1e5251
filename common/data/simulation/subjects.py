"""A cohort of simulated heads and bodies, T1w, T2w, CT and random contrasts, as NIfTI."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from ...io.writing import write_atomically
from ...runtime.progress import make_bar
from ...runtime.values import check_whole_numbers
from . import anatomy, labelmap
from .bodies import make_body
from .randomised import simulate_random_acquisition
from .scans import make_anatomy_from_scan
from .signal import CONTRASTS, simulate_acquisition

#: Air left around the head in mm.
MARGIN = 6.0
_BODIES, _SCANS = 1_000_000, 2_000_000  # first number of a body and of a real volume in random streams


def simulate_subjects(
    output_dir: str,
    subjects: int = 8,
    seed: int = 0,
    contrasts: str | tuple[str, ...] = CONTRASTS,
    spacing: float | Sequence[float] = 1.0,
    labels: str | None = None,
    noise: float = 0.0125,
    bias: float = 0.2,
    blur: float | Sequence[float] = 0.6,
    thickness: float | Sequence[float] = 1.0,
    bodies: int = 0,
    scans: str | None = None,
    keep: bool = False,
    threads: int = 1,
) -> None:
    """Make simulated subjects as NIfTI: ``output_dir/sub-001/sub-001_t1w.nii.gz``, ``..._t2w.nii.gz`` and so on.

    All contrasts of a subject lie on one grid (int16, RAS, mm; heads are cropped). "random1", "random2" and so on are
    scans whose contrast, texture, bias field, noise and masking are drawn at random, to train networks on. Subject i
    does not depend on the number of subjects. Without ``labels`` the anatomy is nilearn's packaged MNI152 tissue maps
    (extra ``demo``), with a different warp, folds, vessels and head layers for each subject. With ``labels`` it is
    the label maps, unchanged. ``bodies`` adds random shapes of all tissues, ``sub-body001`` and so on, to train
    networks on edges of any organ. ``scans`` adds the anatomy of real volumes, ``sub-scan001`` and so on, whose
    intensities become random tissues.

    Args:
        output_dir: folder for the subjects; made if missing. Files of the same name are replaced.
        subjects: number of heads, at least 1.
        seed: the same seed gives the same voxels.
        contrasts: any of "t1w" (MPRAGE), "t2w" (TSE), "ct" (Hounsfield units), "random" with a number.
        spacing: voxel size in mm, in plane, 0.4 to 4; given two numbers, each subject's is drawn between them.
        labels: folder of FreeSurfer-style label maps, one per subject.
        noise: standard deviation of the MR noise channels as a fraction of the brighter of white and grey matter, in
            [0, 1); with 0 the CT is noise-free too. Random scans draw their own.
        bias: largest deviation of the multiplicative MR bias field from 1, in [0, 1). Random scans draw their own.
        blur: with ``labels``, standard deviation of the smoothing of tissue boundaries in voxels, 0.2 to 2; given two
            numbers, each subject's is drawn between them.
        thickness: with ``labels``, ratio of slice thickness to in-plane voxel size of axial slices, 1 to 6; given two
            numbers, about half of the subjects have the lower, and the others' are drawn between them.
        bodies: number of random bodies, at least 0.
        scans: folder of real volumes, such as CT.
        keep: whether to keep existing files, to finish a run that was stopped.
        threads: subjects that are made at the same time, at least 1; each takes about 1 GiB at 1 mm.
    """
    names = [str(n).strip().lower() for n in (contrasts.split(",") if isinstance(contrasts, str) else contrasts)]
    if not names or not all(n in CONTRASTS or re.fullmatch(r"random[1-9]\d*", n) for n in names):
        raise ValueError(
            f"simulate: --contrasts {','.join(names)}; expected some of {','.join(CONTRASTS)}, random1, random2, ..."
        )
    check_whole_numbers(subjects=subjects, threads=threads)
    check_whole_numbers(0, seed=seed, bodies=bodies)
    ranges = {
        "spacing": _parse_range("spacing", spacing, 0.4, 4),
        "blur": _parse_range("blur", blur, 0.2, 2),
        "thickness": _parse_range("thickness", thickness, 1, 6),
    }
    for name, value in (("noise", noise), ("bias", bias)):
        if not 0 <= value <= 0.999:
            raise ValueError(f"simulate: --{name} {value}; expected a number from 0 to 0.999.")
    if labels is None and (blur != 0.6 or thickness != 1):
        raise ValueError("simulate: --blur and --thickness are for label maps; give --labels, or leave them out.")
    if labels is None:
        anatomy.load_template()
    maps = None if labels is None else _find_volumes(labels, "labels")
    if maps is not None and len(maps) < subjects:
        raise ValueError(
            f"simulate: --labels {labels} holds {len(maps)} label maps (.nii, .nii.gz), but --subjects is {subjects}, "
            f"and each subject needs its own. Give --subjects {len(maps)} or fewer, or add label maps."
        )
    real = [] if scans is None else _find_volumes(scans, "scans")

    # Each kind of subject has random streams of its own: a head does not depend on the number of bodies.
    plans: list[tuple[str, int, Callable]] = [
        *((f"sub-{i + 1:03d}", i, partial(_make_head, None if maps is None else maps[i])) for i in range(subjects)),
        *((f"sub-body{i + 1:03d}", _BODIES + i, lambda rng, size, *_: make_body(size, rng)) for i in range(bodies)),
        *((f"sub-scan{i + 1:03d}", _SCANS + i, partial(_make_from_scan, path)) for i, path in enumerate(real)),
    ]

    root = Path(output_dir)

    def simulate_subject(subject: str, number: int, make: Callable) -> None:
        files_of = {name: root / subject / f"{subject}_{name}.nii.gz" for name in names}
        if keep and all(path.is_file() for path in files_of.values()):
            return
        draw = np.random.default_rng([seed, number, 0])
        shares = [draw.random() for _ in ranges]
        shares[2] = max(0.0, 2 * shares[2] - 1)
        size, smoothing, times = (
            round(low + (high - low) * share, 4) for share, (low, high) in zip(shares, ranges.values(), strict=True)
        )
        fractions, affine = make(np.random.default_rng([seed, number]), size, smoothing, times)
        (root / subject).mkdir(parents=True, exist_ok=True)
        for name, path in files_of.items():
            # One random stream for each contrast: the T2w is the same with and without a T1w.
            if name in CONTRASTS:
                rng = np.random.default_rng([seed, number, 1 + CONTRASTS.index(name)])
                volume = simulate_acquisition(fractions, name, rng, noise, bias)
            else:
                rng = np.random.default_rng([seed, number, len(CONTRASTS) + int(name.removeprefix("random"))])
                volume = simulate_random_acquisition(fractions, rng)
            _save_volume(volume, affine, path)

    with ThreadPoolExecutor(threads) as pool:
        made = (map if threads == 1 else pool.map)(simulate_subject, *zip(*plans, strict=True))
        list(make_bar(made, "simulate", total=len(plans), unit="subject"))
    print(f"Wrote {len(plans)} simulated subjects ({', '.join(names)}) to {root}")


def _find_volumes(folder: str, option: str) -> list[Path]:
    """The .nii and .nii.gz files of a folder, sorted by name."""
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"simulate: --{option} {folder}: no such folder; expected one of .nii or .nii.gz files."
        )
    files = sorted(p for p in root.iterdir() if p.name.endswith((".nii", ".nii.gz")) and not p.name.startswith("."))
    if not files:
        raise ValueError(f"simulate: --{option} {folder} holds no .nii or .nii.gz file. Give another folder.")
    return files


def _make_head(
    label_map: Path | None, rng: np.random.Generator, spacing: float, blur: float, thickness: float
) -> tuple[np.ndarray, np.ndarray]:
    if label_map is None:
        return _crop_to_head(*anatomy.make_head_from_template(spacing, rng))
    return _crop_to_head(*labelmap.make_head_from_labels(label_map, (spacing, spacing, thickness * spacing), blur))


def _make_from_scan(path: Path, rng: np.random.Generator, spacing: float, *_) -> tuple[np.ndarray, np.ndarray]:
    return make_anatomy_from_scan(path, spacing, rng)


def _parse_range(name: str, value: float | Sequence[float], low: float, high: float) -> tuple[float, float]:
    """Return the two ends between which a subject's value is drawn; for one number, it is both ends."""
    ends = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(ends) != 2 or not all(isinstance(v, (int, float)) and low <= v <= high for v in ends) or ends[0] > ends[1]:
        raise ValueError(
            f"simulate: --{name} {value}; expected a number from {low} to {high}, or two, as [{low},{high}]."
        )
    return ends


def _crop_to_head(fractions: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    head = fractions[0] < 0.5
    box = []
    for axis, spacing in enumerate(nib.affines.voxel_sizes(affine)):
        margin = int(np.ceil(MARGIN / spacing - 1e-6))
        inside = np.flatnonzero(head.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(max(0, inside[0] - margin), inside[-1] + 1 + margin))
    cropped_affine = affine.copy()
    cropped_affine[:3, 3] += affine[:3, :3] @ [b.start for b in box]
    window = (slice(None), *box)
    return fractions[window], cropped_affine


def _save_volume(volume: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write under a temporary name and move, so that an interrupted run leaves no half file."""
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    with write_atomically(path) as temporary:
        nib.save(image, temporary)
