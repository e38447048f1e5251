"""Tiny volumes, and ways to run a bundle on them."""

import contextlib
import csv
import functools
import importlib
import io
import json
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator
from nibabel.affines import apply_affine, from_matvec
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from common.degradations import Degradation
from common.weights.saving import SavedWeights

from .. import forked
from ..refused import has

# MONAI looks through all of its modules for the names in each config that it parses. In the tests it looks once.
find_names = functools.cache(functools.partial(ComponentLocator._find_classes_or_functions, None))
ComponentLocator._find_classes_or_functions = lambda _, modules: find_names(tuple(modules))

ROOT = Path(__file__).parents[2]
OVERLAYS = "../../../common/program/cases/overlays"  # from a bundle's configs
CASES = ("inference", f"{OVERLAYS}/cases")  # as mri-sr runs cases
BUNDLES = sorted(path.parent.parent.name for path in ROOT.glob("bundles/*/configs/train.json"))

AFFINE = np.diag([1.0, 1.1, 1.2, 1.0])
OBLIQUE = from_matvec(Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix() * [1, 1.1, 1.2], [9, 4, -7])


@dataclass(frozen=True)
class Tiny:
    """A bundle made small enough to train in a second, and what its tests must know of it (tiny/<bundle>.py).

    Attributes:
        network: sizes of its networks; the first is one that makes another architecture when it is doubled.
        training: further overrides of its training: the rest of its sizes, and what the tests' data need.
        degradation: from HR to the scans that it super-resolves; its factors are for the axes LR, AP and SI.
        groups: of its datalist, with the subjects of the cohort that are in each.
        contrast: of its scans, in their files' names.
        source: kind of the volumes of its source group.
        guided: whether each scan has a guide, of contrast t1w.
        stages: what the names of its trainings' state files and histories end in.
        unvalidated: those of the stages that have no validation.
        lengths: for those of the stages that have keys of their own for it, the keys of the number of epochs and of
            iterations an epoch.
        folders: that a training leaves beside the weights.
        weights: files that it leaves there beside model.pt.
        optional: groups that may be empty.
        like: the bundle of which it has data, inferer and degradation, so that what these do is tested there; a
            degradation or inferer of its own is tested in a file of its own.
        exact: whether a resumed run on a GPU gives the same numbers; in the backward passes of replication and
            reflection padding sums are taken in any order there.
    """

    network: Mapping[str, object]
    training: Mapping[str, object]
    degradation: Degradation
    stages: Sequence[str] = ("",)
    groups: Mapping[str, Sequence[int]] = field(
        default_factory=lambda: {"source": (0, 1), "target": (2, 3), "validation": (4,), "test": (5,)}
    )
    contrast: str = "t1w"
    source: str = "hr"
    guided: bool = False
    unvalidated: Sequence[str] = ()
    lengths: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    folders: Sequence[str] = ()
    weights: Sequence[str] = ()
    optional: Sequence[str] = ()
    like: str = ""
    exact: bool = True

    def length(self, stage: str) -> tuple[int, int]:
        """Epochs of a stage, and iterations an epoch."""
        epochs, iterations = self.lengths.get(stage, ("max_epochs", "epoch_length"))
        return self.training[epochs], self.training[iterations]

    def lasting(self, epochs: int, iterations: int) -> dict[str, int]:
        """Overrides for so many epochs of so many iterations in each stage."""
        keys = [("max_epochs", "epoch_length"), *self.lengths.values()]
        return {key: n for pair in keys for key, n in zip(pair, (epochs, iterations), strict=True)}

    def logged(self, stage: str, epochs: int, iterations: int) -> int:
        """Lines of a stage's history when it has done so many epochs of so many iterations."""
        return epochs * (iterations + (stage not in self.unvalidated))

    def case(self, subject: object) -> str:
        """The name of a subject's scan."""
        return f"sub-{subject}_{self.contrast}"

    def save_hr(
        self, folder: Path, subject: object, hr: np.ndarray, affine: np.ndarray = AFFINE, **stored: object
    ) -> dict[str, Path]:
        """Write a subject's HR scan, and its guide on the same grid where there is one; a datalist's entry."""
        entry = {"hr": save(folder / f"{self.case(subject)}.nii.gz", hr, affine, **stored)}
        if self.guided:
            entry["guide"] = save(folder / f"sub-{subject}_t1w.nii.gz", guide_of(hr), affine)
        return entry

    def as_source(self, entry: Mapping[str, Path]) -> dict[str, Path]:
        """An entry of HR scans as one of the source group, under the kind that the bundle learns from there."""
        return {self.source if kind == "hr" else kind: path for kind, path in entry.items()}

    def save_lr(
        self, folder: Path, subject: object, hr: np.ndarray, affine: np.ndarray = AFFINE, **stored: object
    ) -> Path:
        """Write a scan to super-resolve, made from HR, and its guide on a grid of its own where there is one."""
        if self.guided:
            save(folder / f"sub-{subject}_t1w.nii.gz", *elsewhere(guide_of(hr), affine))
        return save(folder / f"{self.case(subject)}.nii.gz", *degrade(hr, affine, self.degradation), **stored)

    def only(self, scan: Path) -> dict[str, str]:
        """Overrides of inference.json for this one scan of its folder."""
        if not self.guided:
            return {"dataset_dir": str(scan)}
        return {"dataset_dir": str(scan.parent), "lr": scan.name, "guide": scan.name.replace(self.contrast, "t1w")}


def _tiny(name: str) -> Tiny:
    """Of a bundle, by its file."""
    known = dict(importlib.import_module(f".tiny.{name}", __package__).TINY)
    if "like" in known:
        known.setdefault("degradation", _tiny(known["like"]).degradation)
    return Tiny(training={"max_epochs": 2, "epoch_length": 4, **known.pop("training")}, **known)


def configs(bundle: str, *names: str) -> list[str]:
    """Paths of a bundle's configs by name, or of others by their paths without ``.json``."""
    return [str(ROOT / "bundles" / bundle / "configs" / f"{name}.json") for name in names]


def content(bundle: str, key: str | None, *names: str, **override: object) -> object:
    """What an entry of the merged configs is built to; without a key, the configs as they are parsed."""
    parser = ConfigParser()
    parser.read_config(configs(bundle, *names))
    parser.update(override)
    return parser if key is None else parser.get_parsed_content(key)


def save_weights(bundle: str, path: Path, **override: object) -> None:
    """Write weights drawn at random, of the tiny or other sizes, with an overlay that a training might have written."""
    torch.manual_seed(0)
    sizes = {**TINY[bundle].network, **override}
    network = content(bundle, "network_def", "inference", **sizes)
    with torch.no_grad():
        for parameter in network.parameters():  # many begin at 0, where the network would only interpolate
            parameter += 0.01 * torch.randn_like(parameter)
    known = content(bundle, None, "inference")
    # What was measured of shipped weights does not hold for these.
    measured = {"highest_consistency_error": None, "adapt_iterations": 0}
    measured = {key: value for key, value in measured.items() if key in known}
    SavedWeights(
        network, [path], {**measured, **sizes, "scale": known["scale"]}, bundle_root=ROOT / "bundles" / bundle
    ).save()


# Each bundle's by its name.
TINY = {path.stem: _tiny(path.stem) for path in sorted(Path(__file__).with_name("tiny").glob("[a-z]*.py"))}


# The bundles that are like no other: what their tests show holds for the others by construction.
FORMS = [name for name, tiny in TINY.items() if not tiny.like]
each_form = pytest.mark.parametrize("bundle", FORMS, indirect=True, scope="session")


def of(*bundles: str) -> pytest.MarkDecorator:
    """Marks tests as being of these bundles."""
    return pytest.mark.parametrize("bundle", bundles, indirect=True, scope="session")


def only(bundle: str) -> list[pytest.MarkDecorator]:
    """Marks every test of a module as being of one bundle."""
    return [pytest.mark.usefixtures("bundle"), of(bundle)]


# For tests of every bundle that take long: of one that is like another in the second step.
like_others_slow = [pytest.param(name, marks=pytest.mark.slow if tiny.like else ()) for name, tiny in TINY.items()]


def phantom(seed: int, shape: Sequence[int] = (40, 44, 36)) -> np.ndarray:
    """A smooth head-like ellipsoid with smaller ones and texture in it, 0 in the air around, float64."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))

    def ellipsoid(centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
        distance = np.sqrt((((grid - centre[:, None, None, None]) / radius[:, None, None, None]) ** 2).sum(axis=0))
        return 1 / (1 + np.exp((distance - 1) / 0.06))

    head = ellipsoid(rng.uniform(-0.05, 0.05, 3), rng.uniform(0.7, 0.78, 3))
    inside = 1.0 + sum(
        rng.uniform(-0.5, 0.5) * ellipsoid(rng.uniform(-0.5, 0.5, 3), rng.uniform(0.1, 0.35, 3)) for _ in range(12)
    )
    inside += 0.15 * gaussian_filter(rng.normal(size=shape), 0.8)
    return 700 * np.clip(head * inside, 0, None)


def guide_of(volume: np.ndarray) -> np.ndarray:
    """Another contrast of a phantom, a smooth function of it that falls where it is bright; air stays air."""
    t = np.clip(volume / 700, 0, 2.5)
    return 500 * (1 - np.exp(-4 * t)) * (2.6 - t)


def head_ct(seed: int, shape: Sequence[int] = (60, 66, 54)) -> np.ndarray:
    """A phantom in Hounsfield units: air, a skull, soft tissue with some contrast and noise."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0))
    tissue = 30 + 25 * np.sin(4 * grid[0] + seed) * np.cos(5 * grid[1]) * np.cos(6 * grid[2])
    skull = (radius > 0.62) & (radius < 0.7)
    return np.where(radius > 0.8, -1000, np.where(skull, 1100, tissue)) + rng.normal(0, 5, shape)


def elsewhere(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A volume on an oblique, finer grid whose axes have another order and whose field of view is larger."""
    spacing, order = 0.9, [2, 0, 1]
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    turned = Rotation.from_euler("xyz", [-7, 10, 6], degrees=True).as_matrix() @ axes[:, order] * spacing
    lengths = np.linalg.norm(affine[:3, :3], axis=0) * volume.shape
    shape = np.ceil(1.3 * lengths[order] / spacing).astype(int)
    middle = apply_affine(affine, (np.array(volume.shape) - 1) / 2)
    place = from_matvec(turned, middle - turned @ ((shape - 1) / 2))
    to_volume = np.linalg.solve(affine, place)
    return affine_transform(volume, to_volume[:3, :3], to_volume[:3, 3], shape, order=3, mode="nearest"), place


def save(path: Path, volume: np.ndarray, affine: np.ndarray = AFFINE, dtype: type = np.float32, axes: str = "") -> Path:
    """Write a NIfTI, with its axes stored in the given order and direction; integers are stored without scaling."""
    volume = np.rint(volume).astype(dtype) if np.issubdtype(dtype, np.integer) else volume.astype(dtype)
    image = nib.Nifti1Image(volume, affine)
    if axes:
        image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(axes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def degrade(volume: np.ndarray, affine: np.ndarray, operator: Degradation) -> tuple[np.ndarray, np.ndarray]:
    """The magnitude of a degraded volume, and its affine."""
    return operator(torch.from_numpy(volume)).abs().numpy(), operator.compute_lr_affine(affine)


def datalist(folder: Path, misaligned: bool = False, **groups: Sequence[Mapping[str, Path]]) -> Path:
    """Write a dataset.json with these entries, each of the subject in its first file's name."""

    def listed(entry: Mapping[str, Path]) -> dict[str, str]:
        subject = next(iter(entry.values())).name.split("_")[0]
        return {**{kind: str(path) for kind, path in entry.items()}, "subject": subject}

    data = {group: [listed(entry) for entry in entries] for group, entries in groups.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"misaligned": misaligned, **data}))
    return folder


def listed(cohort: Path, tiny: Tiny) -> dict[str, list[dict[str, Path]]]:
    """The entries of a cohort's groups, with absolute paths."""
    groups = json.loads((cohort / "dataset.json").read_text())
    return {
        group: [
            {kind: cohort / entry[kind] for kind in ("hr", "guide", "ct") if kind in entry} for entry in groups[group]
        ]
        for group in tiny.groups
    }


def overrides(bundle: str, names: Sequence[str], folder: Path, **override: object) -> dict[str, object]:
    """Overrides for a tiny run that writes to ``folder``: results to "out", weights to "models".

    Sizes are given to a training only: evaluation and inference take them from the weights' overlay. An evaluation has
    no row of shipped weights, unless "with_shipped" is true.
    """
    with_shipped = override.pop("with_shipped", "evaluate" not in names)
    small: dict[str, object] = {"device": "cpu", "output_dir": str(folder / "out")}
    if names[0] != "inference":
        small["ckpt_dir"] = str(folder / "models")
    if not with_shipped:
        small["evaluate#evaluator#shipped"] = "$None"
    if _applies(names):
        small["checkpoint"] = str(folder / "models" / "model.pt")
    else:
        small.update(**TINY[bundle].network, **TINY[bundle].training)
    return {**small, **override}


def _applies(names: Sequence[str]) -> bool:
    """Whether configs apply weights, and train none."""
    return names[0] == "inference" or "evaluate" in names


def with_overlay(bundle: str, names: Sequence[str], folder: Path, override: Mapping[str, object]) -> list[str]:
    """Paths of configs, and of the overlay of the weights that they apply, where there is one."""
    checkpoint = override.get("checkpoint", folder / "models" / "model.pt")
    overlay = None if checkpoint is None else Path(str(checkpoint)).with_suffix(".json")
    beside = [str(overlay)] if _applies(names) and overlay is not None and overlay.is_file() else []
    return configs(bundle, *names) + beside


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Let pictures be empty files: to draw them takes longer than a tiny training. Those of pages are drawn."""
    save = Figure.savefig

    def touch(figure: Figure, path: Path, **options: object) -> None:
        save(figure, path, **options) if isinstance(path, io.BytesIO) else Path(path).touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", touch)
        yield


def run(bundle: str, names: Sequence[str], folder: Path, pictures: bool = False, **override: object) -> None:
    """Run configs in this process, as ``python -m monai.bundle run`` does; its pictures are empty unless asked for."""
    with warnings.catch_warnings(), contextlib.nullcontext() if pictures else undrawn():
        warnings.filterwarnings("ignore", message="parsing config_file")  # that a config can run code
        monai.bundle.run(
            config_file=with_overlay(bundle, names, folder, override),
            logging_file=False,
            **overrides(bundle, names, folder, **override),
        )


def words(bundle: str, names: Sequence[str], folder: Path, **override: object) -> list[str]:
    """The words that follow ``python -m monai.bundle``."""
    line = ["run", "--config_file", str(with_overlay(bundle, names, folder, override))]
    for key, value in overrides(bundle, names, folder, **override).items():
        line += [f"--{key}", str(value)]
    return line


def command(
    bundle: str, names: Sequence[str], folder: Path, launcher: Sequence[str] = (), **override: object
) -> subprocess.CompletedProcess:
    """Run configs by the real command line, from the repository's root; ``launcher`` may be torchrun's."""
    line = words(bundle, names, folder, **override)
    if not launcher:
        return forked.command(["monai.bundle", *line], ROOT, folder.with_name(f"{folder.name}_said"))
    return subprocess.run(
        [*launcher, "-m", "monai.bundle", *line],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def history(folder: Path, stage: str = "") -> list[dict]:
    return [json.loads(line) for line in (folder / "out" / f"history{stage}.jsonl").read_text().splitlines()]


def table(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (folder / "out" / "table.csv").open() as file:
        return {(row["method"], row["case"]): row for row in csv.DictReader(file)}


def check_evaluation(folder: Path, hr_file: Path, degrade_and_place: Callable, method: str) -> np.ndarray:
    """Whether an evaluation's table and result of a case are what numpy and scipy get; gives the interpolated LR.

    ``degrade_and_place`` makes LR of HR in [0, 1], and says where in LR each HR voxel lies.
    """
    case = hr_file.name.removesuffix(".nii.gz")
    written = {path.name for path in (folder / "out").iterdir()}
    assert {f"{case}.png", "boxplots.png", "table.csv", "table.json", f"{case}_sr.nii.gz"} <= written
    rows = table(folder)
    image = to_the_right(hr_file)
    assert image.shape == (41, 37, 44) and nib.aff2axcodes(image.affine) == tuple("RSA")
    scale = np.quantile(image.get_fdata(dtype=np.float32), 0.999)
    sr = to_the_right(folder / "out" / f"{case}_sr.nii.gz")
    hr = image.get_fdata()[tuple(map(slice, sr.shape))] / scale
    lr, positions = degrade_and_place(hr)
    cubic = map_coordinates(lr, positions, order=3, mode="nearest")

    def psnr(volume: np.ndarray) -> float:
        return -10 * np.log10(np.mean((np.clip(volume, 0, 1) - np.clip(hr, 0, 1)) ** 2))

    assert float(rows["cubic", case]["psnr"]) == pytest.approx(psnr(cubic), abs=1e-3)
    assert [float(rows["cubic", case][f"displacement_{axis}"]) for axis in "xyz"] == [0, 0, 0]
    assert sr.get_data_dtype() == image.get_data_dtype()
    np.testing.assert_allclose(sr.affine, image.affine, atol=1e-5)
    assert float(rows[method, case]["psnr"]) == pytest.approx(psnr(sr.get_fdata() / scale), abs=0.05)
    return cubic


def first_cause(error: BaseException) -> BaseException:
    """What first went wrong: the rest is MONAI's wrapping."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def results(bundle: str, folder: Path) -> list:
    """Weights, states and histories of a run, and every file of the folders that it leaves."""
    stages, models = TINY[bundle].stages, folder / "models"
    files = ["model.pt", "model_last.pt", *TINY[bundle].weights, *(f"training_state{stage}.pt" for stage in stages)]
    loaded = [torch.load(models / file, weights_only=True) for file in files]
    written = [path for name in TINY[bundle].folders for path in sorted((models / name).iterdir())]
    return [*loaded, *(history(folder, stage) for stage in stages), {path.name: path.read_bytes() for path in written}]


def same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def leavings(folder: Path) -> list[str]:
    """Files that a run left, but for TensorBoard's, which is opened first, and logs, which tell of failures too."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(str(path) for path in files if "tensorboard" not in path.parts and path.suffix != ".jsonl")


def written(folder: Path) -> list[str]:
    """Names of results; beside them there are only guides' qualities, and those of cases have a JSON each."""
    files = [name for name in leavings(folder) if not name.endswith("_registration.json")]
    found = [name for name in files if name.endswith(".nii.gz")]
    assert files in (found, sorted([*found, *(name.replace(".nii.gz", ".json") for name in found)]))
    return found


def fails(bundle: str, names: Sequence[str], folder: Path, *words: object, **override: object) -> str:
    """The message of a run in this process that must fail and leave nothing, in which each of these words must be."""
    before = leavings(folder) if folder.exists() else []
    with pytest.raises(Exception) as caught:
        run(bundle, names, folder, **override)
    assert (leavings(folder) if folder.exists() else []) == before
    return has(str(first_cause(caught.value)), *words)


def to_the_right(path: Path) -> nib.Nifti1Image:
    """A volume whose first axis is stored from right to left, mirrored: bundles count from the left."""
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine)[0] == "L"
    return image.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))


def centre_of_mass(image: nib.Nifti1Image) -> np.ndarray:
    volume = image.get_fdata()
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.shape], indexing="ij"), axis=-1)
    return apply_affine(image.affine, np.average(index.reshape(-1, 3), axis=0, weights=volume.ravel()))
