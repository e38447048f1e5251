"""Are lesions of known size and contrast still found: inserted into HR, degraded, restored."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import io_orientation
from skimage.filters import threshold_otsu

from ..cases.run import run_cases
from ..degradations.base import Degradation
from ..degradations.k_space import KSpaceTruncation
from ..degradations.profiles import GaussianProfile
from ..degradations.rician_noise import RicianNoise
from ..exams.choose import choose_weights, find_offers
from ..exams.discover import discover_cases
from ..io.nifti_affines import make_image
from ..metrics.baseline import interpolate_cubic
from ..metrics.brightness_classes import divide_by_brightness
from ..metrics.hotelling import ChannelisedHotelling, compute_auc, estimate_auc_deviation
from ..reports.lesions import draw_cutouts, draw_detectability
from ..reports.planes import to_ras
from ..transforms.insert_lesions import InsertLesionsd, Lesion
from .judgement import Judgement, Question, Rows
from .person import ONE_PERSON, Person, correlate_locally
from .volume import Volume

CUBIC = "cubic"  # in place of a bundle: nothing but cubic interpolation
_FALSE_POSITIVES = 0.05
_PLACES, _RARE = 20_000, 0.001  # where false lesions are looked for, and the share of them in HR
_SEEDS = (1, 2, 3, 4)  # of the noise in HR and scan, with and without lesions
_EDGE = 28.0  # mm of the pictures
_SWAPPED = -0.2  # recovered share of the contrast

LesionPair = tuple[np.ndarray, np.ndarray]  # with and without lesions, one grid


def judge_inserted_lesions(person: Person) -> Judgement:
    """Insert lesions into HR, degrade it with and without them, restore both, and let an observer look for them."""
    assert person.insert_lesions is not None
    hr, scale = _prepare_hr(person.insert_lesions, person.scale)
    degradation = make_degradation(scale)
    voxels = MetaTensor(torch.from_numpy(hr.voxels)[None], torch.tensor(hr.affine), {"filename_or_obj": hr.name})
    inserted = InsertLesionsd("hr")({"hr": voxels})
    lesions: list[Lesion] = inserted["hr_lesions"]
    with_lesions = inserted["hr"][0].numpy()
    truth = with_lesions - hr.voxels
    sigma = person.noise * float(np.median(hr.voxels[hr.voxels > threshold_otsu(hr.voxels)]))
    exact = [torch.from_numpy(each)[None] for each in (with_lesions, hr.voxels)]
    noisy = [RicianNoise(sigma, seed)(each) for seed, each in zip(_SEEDS[:2], exact, strict=True)]
    scans = [RicianNoise(sigma, seed)(degradation(each)) for seed, each in zip(_SEEDS[2:], exact, strict=True)]
    upsampled = [interpolate_cubic(each, degradation.factors, degradation.offset) for each in scans]
    pairs: dict[str, LesionPair] = {"HR": _to_pair(noisy), "cubic": _to_pair(upsampled)}
    affine = degradation.compute_lr_affine(hr.affine)
    names = [f"{person.name}_{kind}_lesions" for kind in ("with", "without")]
    images: dict[str, Any] = {
        name: make_image(scan[0].numpy(), affine, None) for name, scan in zip(names, scans, strict=True)
    }
    if person.results:
        pairs |= _read_pairs(person.results, hr)
    elif person.bundle != CUBIC:
        restored = restore_scans(list(images.values()), person.bundle, scale, person.device)
        pairs |= _read_pairs(restored, hr)
        images |= {f"{k}_sr": make_image(v.voxels, hr.affine, None) for k, v in zip(names, restored, strict=True)}
    rows = compare_detection(pairs, lesions, truth, voxel_sizes(hr.affine))
    for name in pairs:
        shares = [row["recovered"] for row in rows if row["result"] == name]
        if np.mean(shares) < _SWAPPED:
            raise ValueError(
                f"judge: {name} lacks the lesions that its partner has; name the result with lesions first, then that "
                "without."
            )
    images[f"{person.name}_inserted"] = make_image(inserted["hr_mask"][0].numpy(), hr.affine, None)
    places = {
        f"{lesion.diameter:g} mm, {100 * lesion.contrast:+.0f} %": (apply_affine(hr.affine, lesion.site), _EDGE)
        for lesion in sorted(lesions, key=lambda each: -np.linalg.norm(np.array(each.site) - np.array(truth.shape) / 2))
    }
    volumes = {"scan": (scans[0][0].numpy(), affine)} | {name: (pair[0], hr.affine) for name, pair in pairs.items()}
    volumes |= {f"{n}, none": (pair[1], hr.affine) for n, pair in pairs.items() if n not in ("HR", "cubic")}
    volumes["HR"] = volumes.pop("HR")
    return Judgement(rows, {f"{person.name}_inserted_lesions": draw_cutouts(volumes, places)}, images)


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
    pairs: Mapping[str, LesionPair], lesions: Sequence[Lesion], truth: np.ndarray, spacing: np.ndarray
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
        places = [_make_box(lesion, spacing) for lesion, is_one in zip(lesions, is_kind, strict=True) if is_one]
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


def _make_box(lesion: Lesion, spacing: np.ndarray) -> tuple[slice, ...]:
    """The voxels that a lesion reaches."""
    half = np.ceil(lesion.diameter / 2 / spacing + 0.5).astype(int).tolist()
    return tuple(slice(max(at - n, 0), at + n + 1) for at, n in zip(lesion.site, half, strict=True))


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
        if not result.is_on_grid_of(hr) or (found := correlate_locally(result, hr)) < ONE_PERSON:
            reason = f"with a local correlation of {found:.2f}" if result.is_on_grid_of(hr) else "another grid"
            raise ValueError(
                f"judge: {result.name} with {result.voxels.shape} voxels is not made of the scans of --insert_lesions "
                f"{hr.name} with {hr.voxels.shape} ({reason}); restore those scans, at this --scale."
            )
    pairs = zip(results[::2], results[1::2], strict=True)
    return {first.label: (first.voxels, second.voxels) for first, second in pairs}


INSERTED_LESIONS = Question(
    "inserted_lesions",
    "Are lesions of known size and contrast still found?",
    {
        "diameter_mm": "of the balls that were put into HR",
        "contrast_percent": "of the balls, in % of the tissue around them",
        "sites": "how many of them",
        "auc": "area under the ROC curve of a channelised Hotelling observer: 0.5 is chance, 1 is sure",
        "auc_sd": "its standard deviation over sites, by bootstrap",
        "lost": "share not detected where 5 % of the sites without a lesion are taken for one",
        "false": "how many of 1000 places in all tissue without a lesion an observer takes for one; he learned in HR, "
        "where he takes 1",
        "recovered": "slope of the contrast that is there on the contrast that was inserted: 1 is all of it",
    },
    lambda person: person.insert_lesions is not None,
    judge_inserted_lesions,
    lambda rows: {"inserted_lesions": draw_detectability(rows)},
    ("diameter_mm", "contrast_percent"),
)
