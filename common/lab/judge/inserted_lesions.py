"""Are lesions of known size and contrast still found: inserted into HR, degraded, restored."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import io_orientation
from skimage.filters import threshold_otsu

from ...degradations.base import Degradation
from ...degradations.k_space import KSpaceTruncation
from ...degradations.profiles import GaussianProfile
from ...degradations.rician_noise import RicianNoise
from ...io.nifti_affines import make_image
from ...metrics.baseline import interpolate_cubic
from ...metrics.brightness_classes import divide_by_brightness
from ...program.cases.run import run_cases
from ...program.exams.choose import choose_weights, find_offers
from ...program.exams.discover import discover_cases
from ...program.volume import Volume, check_grid
from ...reports.files import escape_text
from ...reports.planes import to_ras
from .hotelling import ChannelisedHotelling, compute_auc, estimate_auc_deviation
from .insertion import InsertedLesion, insert_lesions
from .person import Person, check_place
from .pictures import draw_cutouts
from .question import Judgement, Question, Rows

CUBIC = "cubic"  # in place of a bundle: nothing but cubic interpolation
_FALSE_POSITIVES = 0.05
_PLACES, _RARE = 20_000, 0.001  # where false lesions are looked for, and the share of them in HR
_SEEDS = (1, 2, 3, 4)  # of the noise in HR and scan, with and without lesions
_EDGE = 28.0  # mm of the pictures
_SWAPPED = -0.2  # recovered share of the contrast
_NOISE = 0.02  # standard deviation in parts of the tissue's median
_SETTINGS = ("scale", "bundle", "noise")  # options that belong to it alone
_ALLOWED = ("insert_lesions", "person", "results", "device", *_SETTINGS)  # and all that may be given with it

LesionPair = tuple[np.ndarray, np.ndarray]  # with and without lesions, one grid


class InsertedLesions(Question):
    """HR: lesions are inserted, it is degraded with and without them, both are restored, and an observer looks."""

    name = "inserted_lesions"
    question = "Are lesions of known size and contrast still found?"
    columns: ClassVar[Mapping[str, str]] = {
        "diameter_mm": "of the balls that were put into HR",
        "contrast_percent": "of the balls, in % of the tissue around them",
        "sites": "how many of them",
        "auc": "area under the ROC curve of a channelised Hotelling observer: 0.5 is chance, 1 is sure",
        "auc_sd": "its standard deviation over sites, by bootstrap",
        "lost": "share not detected where 5 % of the sites without a lesion are taken for one",
        "false": "how many of 1000 places in all tissue without a lesion an observer takes for one; he learned in HR, "
        "where he takes 1",
        "recovered": "slope of the contrast that is there on the contrast that was inserted: 1 is all of it",
    }
    asked_by = ("insert_lesions", *_SETTINGS)
    by = ("diameter_mm", "contrast_percent")

    def __init__(self, person: Person, given: Mapping[str, Any]) -> None:
        if "insert_lesions" not in given:
            wrong = " and ".join(f"--{key}" for key in _SETTINGS if key in given)
            raise ValueError(f"judge: {wrong}: that is for --insert_lesions HR; name it too.")
        if wrong := " and ".join(f"--{key}" for key in given if key not in _ALLOWED):
            raise ValueError(f"judge: --insert_lesions goes without {wrong}; ask in a run of its own.")
        self.person = person
        self.hr: Volume = given["insert_lesions"]
        self.scale, self.noise = _parse_scale(given.get("scale")), _parse_noise(given.get("noise", _NOISE))
        self.bundle: str | None = given.get("bundle")
        self.device: str | None = given.get("device")

    def judge(self) -> Judgement:
        hr, scale = _prepare_hr(self.hr, self.scale)
        degradation = make_degradation(scale)
        with_lesions, mask, lesions = insert_lesions(hr)
        truth = with_lesions - hr.voxels
        sigma = self.noise * float(np.median(hr.voxels[hr.voxels > threshold_otsu(hr.voxels)]))
        exact = [torch.from_numpy(each)[None] for each in (with_lesions, hr.voxels)]
        noisy = [RicianNoise(sigma, seed)(each) for seed, each in zip(_SEEDS[:2], exact, strict=True)]
        scans = [RicianNoise(sigma, seed)(degradation(each)) for seed, each in zip(_SEEDS[2:], exact, strict=True)]
        upsampled = [interpolate_cubic(each, degradation.factors, degradation.offset) for each in scans]
        pairs: dict[str, LesionPair] = {"HR": _to_pair(noisy), "cubic": _to_pair(upsampled)}
        affine = degradation.compute_lr_affine(hr.affine)
        names = [f"{self.person.name}_{kind}_lesions" for kind in ("with", "without")]
        images: dict[str, Any] = {
            name: make_image(scan[0].numpy(), affine, None) for name, scan in zip(names, scans, strict=True)
        }
        if self.person.results:
            pairs |= _read_pairs(self.person.results, hr)
        elif self.bundle != CUBIC:
            restored = restore_scans(list(images.values()), self.bundle, scale, self.device)
            pairs |= _read_pairs(restored, hr)
            images |= {f"{k}_sr": make_image(v.voxels, hr.affine, None) for k, v in zip(names, restored, strict=True)}
        rows = compare_detection(pairs, lesions, truth, voxel_sizes(hr.affine))
        for name in pairs:
            shares = [row["recovered"] for row in rows if row["result"] == name]
            if np.mean(shares) < _SWAPPED:
                raise ValueError(
                    f"judge: {name} lacks the lesions that its partner has; name the result with lesions first, then "
                    "that without."
                )
        images[f"{self.person.name}_inserted"] = make_image(mask, hr.affine, None)
        places = {
            f"{lesion.diameter:g} mm, {100 * lesion.contrast:+.0f} %": (apply_affine(hr.affine, lesion.site), _EDGE)
            for lesion in sorted(
                lesions, key=lambda each: -np.linalg.norm(np.array(each.site) - np.array(truth.shape) / 2)
            )
        }
        volumes = {"scan": (scans[0][0].numpy(), affine)} | {name: (pair[0], hr.affine) for name, pair in pairs.items()}
        volumes |= {f"{n}, none": (pair[1], hr.affine) for n, pair in pairs.items() if n not in ("HR", "cubic")}
        volumes["HR"] = volumes.pop("HR")
        return Judgement(rows, {f"{self.person.name}_inserted_lesions": draw_cutouts(volumes, places)}, images)

    @staticmethod
    def draw(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Detectability, recovered contrast and share lost against the size of lesions; a point is a person."""
        contrasts = sorted({row["contrast_percent"] for row in rows})
        drawn = {"auc": "area under ROC curve", "lost": "share lost", "recovered": "share of contrast"}
        names = list(dict.fromkeys(row["result"] for row in rows))
        figure = Figure(figsize=(3.6 * len(drawn), 2.8 * len(contrasts)), dpi=100, layout="constrained")
        panels = figure.subplots(len(contrasts), len(drawn), squeeze=False, sharex=True)
        for line, contrast in zip(panels, contrasts, strict=True):
            for axes, (column, title) in zip(line, drawn.items(), strict=True):
                for n, name in enumerate(names):
                    some = [row for row in rows if row["result"] == name and row["contrast_percent"] == contrast]
                    sizes = sorted({row["diameter_mm"] for row in some})
                    values = [[row[column] for row in some if row["diameter_mm"] == size] for size in sizes]
                    axes.plot(sizes, list(map(np.mean, values)), color=f"C{n % 10}", label=escape_text(name))
                    for size, points in zip(sizes, values, strict=True):
                        axes.plot([size] * len(points), points, ".", color=f"C{n % 10}", markersize=4)
                axes.set_ylabel(title, fontsize=8)
                axes.set_title(f"contrast {contrast:+.0f} %", fontsize=8)
                axes.tick_params(labelsize=7)
                axes.grid(alpha=0.3)
        for axes in panels[-1]:
            axes.set_xlabel("diameter (mm)", fontsize=8)
        panels[0][0].legend(fontsize=7)
        return {"inserted_lesions": figure}


def _parse_scale(scale: Any) -> tuple[int, ...]:
    """Voxels of HR for one of the scan, from a text or numbers."""
    numbers = scale
    with contextlib.suppress(ValueError):
        numbers = json.loads(scale) if isinstance(scale, str) else scale
    if (
        not isinstance(numbers, list | tuple)
        or [type(n) for n in numbers] != [int] * 3
        or min(numbers) < 1
        or max(numbers) == 1
    ):
        raise ValueError(
            f"judge: --scale is {scale!r}, expected voxels of HR for one of the scan along the axes of the file, such "
            'as "[2,2,2]" or "[1,1,4]".'
        )
    return tuple(numbers)


def _parse_noise(noise: Any) -> float:
    """Noise in parts of the tissue's brightness, from a text or a number."""
    with contextlib.suppress(ValueError):
        noise = float(noise)
    if not isinstance(noise, float) or not 0 <= noise < 1:
        raise ValueError(f"judge: --noise is {noise!r}, expected parts of the tissue's brightness, such as 0.02.")
    return noise


def make_degradation(scale: Sequence[int]) -> Degradation:
    """A Gaussian slice profile if only one axis is coarser, else k-space truncation."""
    if sum(factor > 1 for factor in scale) == 1:
        return GaussianProfile(scale)
    return KSpaceTruncation(scale)


def restore_scans(
    scans: Sequence[Any], bundle: str | None, scale: Sequence[int], device: str | None = None
) -> list[Volume]:
    """Super-resolve scans by the weights that ``mri-sr`` chooses of those of a scale.

    Args:
        scans: NIfTI images with one grid.
        bundle: the only one; None for any.
        scale: voxels of a result for one of a scan, along the axes of the scan.
        device: where the network runs; None for the first GPU, if there is one.

    Returns:
        The results, with the name of the weights.
    """
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # about its set-up
    # The last axis of weights is across the slices: the only one that is refined, or the only one that is not.
    ordered = sorted(scale, reverse=sum(factor > 1 for factor in scale) == 2)
    offers, _ = find_offers(bundle, ordered, {} if device is None else {"device": device}, False, [])
    with tempfile.TemporaryDirectory(prefix="judge-") as folder, contextlib.redirect_stdout(io.StringIO()):
        files = [Path(folder, "scans", f"scan{n}.nii.gz") for n in range(len(scans))]
        files[0].parent.mkdir()
        for scan, file in zip(scans, files, strict=True):
            nib.save(scan, file)
        cases = discover_cases([files[0].parent], Path(folder))
        choose_weights(cases, offers, None, False, bundle is not None)
        run_cases(cases, Path(folder, "results"))
        for case in cases:
            if case.problem is not None:
                raise ValueError(f"judge: --insert_lesions: the degraded scan was not restored: {case.problem}")
        return [replace(Volume.read(str(case.result), ""), label=case.choice.offer.name) for case in cases]


def compare_detection(
    pairs: Mapping[str, LesionPair], lesions: Sequence[InsertedLesion], truth: np.ndarray, spacing: np.ndarray
) -> Rows:
    """Let an observer look for each kind of lesion in each pair of volumes.

    The observer learns at half of the sites and looks at the other half, then the other way round. In each pair it
    learns anew. For false lesions it has learned in HR, and looks at places all over the tissue without lesions.

    Args:
        pairs: by name, volumes with and without lesions, among them HR.
        lesions: that were inserted.
        truth: what they added to HR.
        spacing: in mm, (3,).
    """
    observer = ChannelisedHotelling()
    sites = np.array([lesion.site for lesion in lesions])
    channels = {
        name: [observer.compute_channels(volume, spacing.tolist(), sites) for volume in pair]
        for name, pair in pairs.items()
    }
    everywhere = _draw_places(pairs["HR"][1])
    free = {name: observer.compute_channels(pair[1], spacing.tolist(), everywhere) for name, pair in pairs.items()}
    kinds = [(lesion.diameter, lesion.contrast) for lesion in lesions]
    rows: Rows = []
    for kind in sorted(set(kinds)):
        is_kind = np.array([each == kind for each in kinds])
        # Each half has half of the sites of this kind.
        half = np.zeros(len(sites), bool)
        half[np.flatnonzero(is_kind)[::2]] = half[np.flatnonzero(~is_kind)[::2]] = True
        places = [
            lesion.find_box(spacing, truth.shape) for lesion, is_one in zip(lesions, is_kind, strict=True) if is_one
        ]
        expected = np.concatenate([truth[place].ravel() for place in places]).astype(np.float64)
        _fit(observer, channels["HR"], np.ones(len(sites), bool), is_kind)
        alarms = {name: observer.score(values) for name, values in free.items()}
        threshold = np.quantile(alarms["HR"], 1 - _RARE)
        for name, pair in pairs.items():
            present, absent = channels[name]
            scores = {key: np.zeros(len(sites)) for key in ("present", "absent")}
            for learned in (half, ~half):
                seen = ~learned
                _fit(observer, channels[name], learned, is_kind)
                scores["present"][seen] = observer.score(present[seen])
                scores["absent"][seen] = observer.score(absent[seen])
            own = np.quantile(scores["absent"], 1 - _FALSE_POSITIVES)
            there = scores["present"][is_kind]
            difference = np.concatenate([(pair[0][place] - pair[1][place]).ravel() for place in places])
            rows.append(
                {
                    "result": name,
                    "diameter_mm": kind[0],
                    "contrast_percent": 100 * kind[1],
                    "sites": len(places),
                    "auc": compute_auc(scores["absent"], there),
                    "auc_sd": estimate_auc_deviation(scores["absent"], there),
                    "lost": float((there <= own).mean()),
                    "false": 1000 * float((alarms[name] > threshold).mean()),
                    "recovered": float(difference @ expected / (expected @ expected)),
                }
            )
    return rows


def _draw_places(hr: np.ndarray) -> np.ndarray:
    """Voxels of tissue, drawn at random, (N, 3)."""
    tissue = np.argwhere(~divide_by_brightness(hr)["air"])
    return np.random.default_rng(0).permutation(tissue)[:_PLACES]


def _fit(observer: ChannelisedHotelling, channels: Sequence[np.ndarray], learned: np.ndarray, kind: np.ndarray) -> None:
    """Let the observer learn the lesions of a kind at some sites."""
    present, absent = channels
    both = learned & kind
    observer.fit(absent[learned], (present[both] - absent[both]).mean(axis=0))


def _prepare_hr(hr: Volume, scale: Sequence[int]) -> tuple[Volume, list[int]]:
    """HR and the scale with their axes as R, A, S, without the last voxels that would be a part of one of the scan.

    Restored volumes begin at the first voxel in R, A, S, whatever the order in the file.
    """
    voxels, affine = to_ras(hr.voxels, hr.affine)
    order = np.argsort(io_orientation(hr.affine)[:, 0])
    scale = [scale[axis] for axis in order]
    box = tuple(slice(n // factor * factor) for n, factor in zip(voxels.shape, scale, strict=True))
    return Volume(hr.name, np.ascontiguousarray(voxels[box]), affine, hr.metadata), scale


def _to_pair(volumes: Sequence[torch.Tensor]) -> LesionPair:
    return volumes[0][0].numpy(), volumes[1][0].numpy()


def _read_pairs(results: Sequence[Volume], hr: Volume) -> dict[str, LesionPair]:
    """Restored volumes with and without lesions, in turn, by the name of the first of each pair."""
    if len(results) % 2:
        raise ValueError(
            f"judge: --insert_lesions {hr.name}: found {len(results)} results, expected pairs: that of the scan with "
            "lesions, then that of the scan without."
        )
    for result in results:
        check_grid(hr, result, "--insert_lesions")
        check_place(hr, result, f"--insert_lesions {hr.name}")
    pairs = zip(results[::2], results[1::2], strict=True)
    return {first.label: (first.voxels, second.voxels) for first, second in pairs}
