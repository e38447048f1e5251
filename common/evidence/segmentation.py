"""The segmentations of the volumes that are judged: of the brain's tissues, or a user's own."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from ..io.images import open_image
from ..io.naming import make_case_stem
from ..transforms.labels import read_labels
from .brain import TISSUES, classify_brightness, name_tissues, order_tissues, segment_brain
from .volume import Volume

_LAST_LINES = 5  # of what a command writes to stderr


@dataclass
class Segmentation:
    """Regions of a volume.

    Attributes:
        labels: ``(X, Y, Z)`` on its grid, 0 outside.
        names: of the labels.
        whole: the name of all labels together.
        sizes: of the labels in voxels, where those at borders count in part; None to count voxels.
    """

    labels: np.ndarray
    names: Mapping[int, str]
    whole: str
    sizes: Mapping[int, float] | None = None

    @property
    def regions(self) -> list[str]:
        """The names of single labels, after that of all together if there are several."""
        return [self.whole, *self.names.values()] if len(self.names) > 1 else [*self.names.values()]

    def get_mask(self, region: str) -> np.ndarray:
        """Where a region is; nowhere for a name that it lacks."""
        if region == self.whole:
            return self.labels != 0
        return np.isin(self.labels, [number for number, name in self.names.items() if name == region])

    def measure_size(self, region: str) -> float:
        """The size of a region in voxels."""
        if self.sizes is None or region == self.whole:
            return float(self.get_mask(region).sum())
        return sum(self.sizes[number] for number, name in self.names.items() if name == region)


class Segmenter:
    """Segments the volumes of one person, each once.

    Args:
        labels: the user's own segmentation, see :func:`find_labels`; None to segment the tissues of the brain.
        reference: the volume that tells the order of brightness of the tissues, for all.
    """

    def __init__(self, labels: str | None, reference: Volume) -> None:
        if labels is not None:
            check_labels_option(labels)
        self.labels, self.reference = labels, reference
        self._found: dict[int, Segmentation | None] = {}

    def segment(self, volume: Volume) -> Segmentation | None:
        """The segmentation of a volume; None if there is no file of labels for it."""
        if id(volume) not in self._found:
            if self.labels is not None:
                self._found[id(volume)] = find_labels(self.labels, volume)
            else:
                classes, sizes = self._reference_classes if volume is self.reference else _classify(volume)
                order = order_tissues(self._reference_classes[0], self.reference.affine)
                own = {number: float(sizes[found - 1]) for number, found in zip(TISSUES, order, strict=True)}
                self._found[id(volume)] = Segmentation(name_tissues(classes, order), TISSUES, "brain", own)
        return self._found[id(volume)]

    @cached_property
    def _reference_classes(self) -> tuple[np.ndarray, np.ndarray]:
        return _classify(self.reference)


def _classify(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Classes of brightness in the brain, and their sizes."""
    try:
        return classify_brightness(volume.voxels, segment_brain(volume.voxels, volume.affine))
    except ValueError as error:
        raise ValueError(f"judge: --anatomy, {volume.name}: {error}") from None


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
    path = Path(volume.name)
    file = Path(labels.replace("{name}", make_case_stem(path)).replace("{folder}", path.absolute().parent.name))
    return _read(file, volume, str(file)) if file.is_file() else None


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
    labels = read_labels(file)
    image: SpatialImage = open_image(file)
    found = Volume(str(file), labels, np.asarray(image.affine, dtype=np.float64), {})
    if not found.is_on_grid_of(volume):
        raise ValueError(
            f"judge: --labels: the labels of {source} with {labels.shape} voxels do not lie on the grid of "
            f"{volume.name} with {volume.voxels.shape}; resample them to it."
        )
    numbers = [int(number) for number in np.unique(labels) if number]
    if not numbers:
        raise ValueError(f"judge: --labels: all labels of {source} are 0; expected numbers of regions.")
    return Segmentation(labels, {number: str(number) for number in numbers}, "all labels")
