"""The segmentations of the volumes that are judged: of the brain's tissues, or a user's own."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import SpatialImage
from scipy import ndimage

from ...geometry.gaussian import compute_coarsening_sigma
from ...geometry.resampling import scale_voxels
from ...io.images import open_image
from ...io.naming import make_case_stem
from ...program.labels import read_labels
from ...program.volume import Volume, check_grid

#: The tissues, with their labels.
TISSUES = {"csf": 1, "grey matter": 2, "white matter": 3}
#: Voxels below the first number of mm are segmented at the second: finer ones take minutes a volume.
FINEST, COARSE = 0.9, 1.0
_BETA = 0.1  # weight of neighbours against brightness, as in DIPY's example of T1w heads
_ITERATIONS = 10  # more change volumes by less than 1 %
_TOP = 0.999  # quantile of the brain that becomes 1
_LEAST = 1e-3  # of it: 0 is what lies outside
_OUTER = 3.0  # mm from the border of the brain, where CSF is most frequent
_LAST_LINES = 5  # of what a command writes to stderr


@dataclass
class Segmentation:
    """Regions of a volume.

    Attributes:
        volume: what was segmented, maybe on a coarser grid.
        labels: ``(X, Y, Z)`` on its grid, 0 outside.
        names: of regions, with their labels.
        whole: the name of all labels together.
        sizes: of regions in voxels, where those at borders count in part; others are counted.
    """

    volume: Volume
    labels: np.ndarray
    names: Mapping[str, int]
    whole: str
    sizes: Mapping[str, float] = field(default_factory=dict)

    @property
    def regions(self) -> list[str]:
        """The names of single labels, after that of all together if there are several."""
        return [self.whole, *self.names] if len(self.names) > 1 else [*self.names]

    def get_mask(self, region: str) -> np.ndarray:
        """Where a region is; nowhere for a name that it lacks."""
        if region == self.whole:
            return self.labels != 0
        return np.isin(self.labels, [number for name, number in self.names.items() if name == region])

    def measure(self, region: str) -> float:
        """The size of a region in ml."""
        count = self.sizes[region] if region in self.sizes else float(self.get_mask(region).sum())
        return count * self.volume.millilitres


class Segmenter:
    """Segments the volumes of one person, each once.

    Args:
        labels: the user's own segmentation, see :func:`find_labels`; None to segment the tissues of the brain.
        reference: the volume that tells the order of brightness of the tissues, for all.
    """

    def __init__(self, labels: str | None, reference: Volume) -> None:
        self.labels, self.reference = labels, reference
        self._found: dict[int, Segmentation | None] = {}

    def segment(self, volume: Volume) -> Segmentation | None:
        """The segmentation of a volume; None if there is no file of labels for it."""
        if id(volume) not in self._found:
            if self.labels is not None:
                self._found[id(volume)] = find_labels(self.labels, volume)
            else:
                coarse, classes, sizes = self._reference_classes if volume is self.reference else _classify(volume)
                reference, known, _ = self._reference_classes
                order = order_tissues(known, reference.affine)
                own = {name: float(sizes[found - 1]) for name, found in zip(TISSUES, order, strict=True)}
                labels = name_tissues(classes, order)
                self._found[id(volume)] = Segmentation(coarse, labels, TISSUES, "brain", own)
        return self._found[id(volume)]

    @cached_property
    def _reference_classes(self) -> tuple[Volume, np.ndarray, np.ndarray]:
        return _classify(self.reference)


def _classify(volume: Volume) -> tuple[Volume, np.ndarray, np.ndarray]:
    """The volume on the grid of its segmentation, classes of brightness in the brain, and their sizes."""
    coarse = coarsen(volume)
    try:
        return coarse, *classify_brightness(coarse.voxels, segment_brain(coarse.voxels, coarse.affine))
    except ValueError as error:
        raise ValueError(f"judge: --anatomy, {volume.name}: {error}") from None


def coarsen(volume: Volume) -> Volume:
    """A volume with voxels of 1 mm along the axes where they are below 0.9 mm, from the same first corner."""
    spacing = np.where(volume.spacing < FINEST, COARSE, volume.spacing)
    if (spacing == volume.spacing).all():
        return volume
    size = np.maximum(np.rint(volume.voxels.shape * volume.spacing / spacing), 1).astype(int)
    sigma = compute_coarsening_sigma(volume.spacing, spacing) / volume.spacing
    blurred = replace(volume, voxels=ndimage.gaussian_filter(volume.voxels, sigma, mode="nearest"))
    grid = Volume(volume.name, np.empty(size, np.float32), scale_voxels(volume.affine, spacing / volume.spacing), {})
    return blurred.place_on_grid(grid)


def check_labels_option(labels: str) -> None:
    """Check the text of ``--labels``."""
    if not is_pattern(labels) and not ("{input}" in labels and "{output}" in labels):
        raise ValueError(
            f"judge: --labels {labels}: expected a pattern of files with {{name}} or {{folder}} in it, such as "
            "maps/{name}_labels.nii.gz, or a command with {input} and {output}."
        )


def is_pattern(labels: str) -> bool:
    """Whether ``--labels`` is a pattern of files."""
    return "{input}" not in labels and ("{name}" in labels or "{folder}" in labels)


def find_labels(labels: str, volume: Volume) -> Segmentation | None:
    """The user's labels of a volume, from a file or a command.

    Args:
        labels: a pattern, in which ``{name}`` is the volume's name without folder and ending, and ``{folder}`` its
            folder's name; or a command, in which ``{input}`` and ``{output}`` are files.
        volume: to be segmented; one that is not from a file, such as an interpolation, has no file of labels.

    Returns:
        Its segmentation; None if it has no file of labels.
    """
    if not is_pattern(labels):
        with tempfile.TemporaryDirectory() as folder:
            return _read(_run_command(labels, volume, Path(folder)), volume, f"the command for {volume.name}")
    file = _locate_labels(labels, volume)
    return _read(file, volume, str(file)) if file.is_file() else None


def explain_no_labels(labels: str, volume: Volume) -> str:
    """Message that a volume has no file of labels, with the path where one was looked for."""
    return (
        f"judge: --labels {labels}: there is no file of labels for {volume.name}, which would be "
        f"{_locate_labels(labels, volume)}."
    )


def _locate_labels(labels: str, volume: Volume) -> Path:
    """Where a pattern of files says that the labels of a volume are."""
    path = Path(volume.name)
    return Path(labels.replace("{name}", make_case_stem(path)).replace("{folder}", path.absolute().parent.name))


def _run_command(command: str, volume: Volume, folder: Path) -> Path:
    """Run a command on a volume; returns the file that it wrote."""
    files = {"{input}": folder / "input.nii.gz", "{output}": folder / "output.nii.gz"}
    nib.save(nib.Nifti1Image(volume.voxels, volume.affine), files["{input}"])
    words = shlex.split(command)
    for place, file in files.items():
        words = [word.replace(place, str(file)) for word in words]
    what = f"judge: --labels {command}, for {volume.name}"
    try:
        done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    except OSError as error:
        raise ValueError(f"{what}: it cannot be started ({error}); name a program that is there.") from None
    if done.returncode or not files["{output}"].is_file():
        last = "; ".join(done.stderr.decode(errors="replace").strip().splitlines()[-_LAST_LINES:]) or "nothing"
        wrote = "" if done.returncode else " without a file at {output}"
        raise ValueError(f"{what}: it ended with code {done.returncode}{wrote}, and said {last}.")
    return files["{output}"]


def _read(file: Path, volume: Volume, source: str) -> Segmentation:
    """Read the labels of a volume, and check that they lie on its grid."""
    image: SpatialImage = open_image(file)
    stored = Volume(source, read_labels(file), np.asarray(image.affine, dtype=np.float64), {}).order_like(volume)
    check_grid(stored, volume, "--labels")
    labels = stored.voxels
    numbers = [int(number) for number in np.unique(labels) if number]
    if not numbers:
        raise ValueError(f"judge: --labels: all labels of {source} are 0; expected numbers of regions.")
    return Segmentation(volume, labels, {str(number): number for number in numbers}, "all labels")


def check_segmentation() -> None:
    """Check before work begins that the packages are there."""
    for package in ("deepbet", "dipy"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"{package} is not installed, which segments the brain; install the extra: pip install '.[judge]', or "
                "give your own segmentation with --labels."
            )


def segment_brain(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Find the brain, with the CSF around it, by the network of deepbet.

    Args:
        voxels: ``(X, Y, Z)`` of a head of any contrast, with or without skull.
        affine: 4x4, in mm.

    Returns:
        Mask ``(X, Y, Z)``.

    Source:
        Fisch et al., deepbet: Fast brain extraction of T1-weighted MRI using Convolutional Neural Networks, Computers
        in Biology and Medicine 179, 2024.
    """
    from deepbet import BrainExtraction

    try:
        mask = BrainExtraction(no_gpu=True).run(nib.Nifti1Image(voxels.astype(np.float32), affine))[1]
    except (AssertionError, ValueError) as error:  # of its box around nothing
        raise ValueError(f"deepbet finds no brain ({error}); expected a whole head, or give --labels.") from None
    return np.asarray(mask.dataobj) > 0


def classify_brightness(voxels: np.ndarray, brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide the brain into three classes of brightness, by a hidden Markov random field.

    A voxel at a border belongs to several classes in part. Sizes count the parts, so blur and noise change them less
    than they change the numbers of voxels.

    Args:
        voxels: ``(X, Y, Z)``, any units.
        brain: mask of the same shape.

    Returns:
        Classes ``(X, Y, Z)``: 1 for the darkest to 3 for the brightest, 0 outside of the brain. Sizes of the classes in
        voxels, (3,).

    Source:
        Zhang et al., Segmentation of brain MR images through a hidden Markov random field model and the
        expectation-maximization algorithm, IEEE Transactions on Medical Imaging 20(1), 2001.
    """
    from dipy.segment.tissue import TissueClassifierHMRF

    (box,) = ndimage.find_objects(np.pad(brain, 1).astype(np.uint8))  # with a voxel of margin, in the padded volume
    box = tuple(slice(side.start - 1, side.stop + 1) for side in box)
    inside, values = np.pad(brain, 1)[box], np.pad(voxels, 1)[box].astype(np.float64)
    scaled = np.where(inside, (values / np.quantile(values[inside], _TOP)).clip(_LEAST, 1), 0)
    state = np.random.get_state()
    np.random.seed(0)  # DIPY draws noise for what lies outside
    try:
        classifier = TissueClassifierHMRF(verbose=False)
        _, found, parts = classifier.classify(scaled, len(TISSUES), _BETA, max_iter=_ITERATIONS)
    finally:
        np.random.set_state(state)
    classes = np.zeros(np.add(brain.shape, 2), np.uint8)
    classes[box] = np.where(inside, found.clip(1), 0)
    sizes = parts[inside].sum(axis=0, dtype=np.float64)
    sizes[0] += inside.sum() - sizes.sum()  # the darkest voxels have parts of what lies outside
    return classes[1:-1, 1:-1, 1:-1], sizes


def order_tissues(classes: np.ndarray, affine: np.ndarray) -> tuple[int, ...]:
    """Tell which class is which tissue by where it lies: CSF is most frequent at the border, white matter lies deepest.

    So it holds for T1w, T2w and FLAIR.

    Args:
        classes: ``(X, Y, Z)``, 1 to 3 in the brain, 0 outside.
        affine: 4x4, in mm.

    Returns:
        The classes of CSF, grey matter and white matter.
    """
    spacing = voxel_sizes(affine)
    depth = ndimage.distance_transform_edt(np.pad(classes > 0, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    numbers = list(TISSUES.values())
    white = max(numbers, key=lambda n: np.median(depth[classes == n]) if (classes == n).any() else 0)
    outer = np.bincount(classes[(depth > 0) & (depth <= max(_OUTER, spacing.min()))], minlength=4)
    numbers.remove(white)
    csf = max(numbers, key=lambda n: outer[n])
    numbers.remove(csf)
    return csf, *numbers, white


def name_tissues(classes: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """The labels of :data:`TISSUES`, from classes of brightness and their order (:func:`order_tissues`)."""
    of_class = np.zeros(len(TISSUES) + 1, np.uint8)
    of_class[list(order)] = list(TISSUES.values())
    return of_class[classes]
