"""A measure for exams without HR: whether slices show in a volume as bands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import fft, ndimage

from common.io.files import read_sidecar

FWHM = 2.3548  # of a normal distribution, in standard deviations
REACH = 1.2  # how far a slice's profile reaches from its centre, in slice thicknesses
TAPER = 12.0  # mm from the edge of a region to where it counts fully
RADIUS, AWAY = 0.1, 0.25  # of a band in k-space, and from there to where there is none; 1 is once per slice


@dataclass
class Volume:
    """Voxels (X, Y, Z) and their affine (4, 4), to mm."""

    voxels: np.ndarray
    affine: np.ndarray

    @classmethod
    def read(cls, path: str | Path) -> Volume:
        image = nib.squeeze_image(nib.load(path))
        return cls(np.asarray(image.dataobj, dtype=np.float32), image.affine)

    def blur(self, direction: np.ndarray, sigma: float) -> Volume:
        """The volume, blurred along a direction in mm with a standard deviation in mm."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        pad = np.ceil(3 * sigma / spacing).astype(int)
        sizes = [fft.next_fast_len(int(n + 2 * p), real=True) for n, p in zip(self.voxels.shape, pad, strict=True)]
        ends = [(p, size - n - p) for n, p, size in zip(self.voxels.shape, pad, sizes, strict=True)]
        cycles = np.meshgrid(*map(fft.fftfreq, sizes[:2]), fft.rfftfreq(sizes[2]), indexing="ij", sparse=True)
        per_mm = np.linalg.inv(self.affine[:3, :3]).T
        world = [sum(row[i] * cycles[i] for i in range(3)) for row in per_mm]
        exponent = (sigma * sum(d * k for d, k in zip(direction, world, strict=True))) ** 2
        spectrum = fft.rfftn(np.pad(self.voxels, ends, mode="edge"))
        spectrum *= np.exp(-2 * np.pi**2 * exponent).astype(np.float32)
        blurred = fft.irfftn(spectrum, sizes)
        return Volume(blurred[tuple(slice(p, p + n) for n, p in zip(self.voxels.shape, pad, strict=True))], self.affine)

    def locate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places (3, N) in voxels of points (N, 3) in mm, and which of them lie in the field of view."""
        inverse = np.linalg.inv(self.affine)
        places = inverse[:3, :3] @ points.T + inverse[:3, 3:]
        inside = (places > -0.5) & (places < np.array(self.voxels.shape)[:, None] - 0.5)
        return places, inside.all(axis=0)

    def sample(self, points: np.ndarray, order: int = 1) -> np.ndarray:
        """The values at points (N, 3) in mm, by splines of an order."""
        return ndimage.map_coordinates(self.voxels, self.locate(points)[0], order=order, mode="nearest")


class MeasuredStack:
    """A stack in whose planes volumes are cut.

    Args:
        path: of the stack. Its sidecar may have the slice thickness, else slices have no gaps.
        mask: file on the same grid, of what alone is compared.
    """

    def __init__(self, path: str | Path, mask: str | Path | None = None) -> None:
        self.stack = Volume.read(path)
        affine, shape = self.stack.affine, self.stack.voxels.shape
        self.spacing = np.linalg.norm(affine[:3, :3], axis=0)
        self.across = int(np.argmax(self.spacing))
        self.normal = affine[:3, self.across] / self.spacing[self.across]
        thickness = read_sidecar(path)[0].get("SliceThickness", self.spacing[self.across])
        self.thickness = float(thickness)
        self.mask = np.ones(shape, bool) if mask is None else Volume.read(mask).voxels > 0
        self.centre = apply_affine(affine, np.argwhere(self.mask).mean(axis=0))

    def find_covered(self, volume: Volume, points: np.ndarray) -> np.ndarray:
        """Which points (N, 3) lie in the volume with the whole profile of their slice."""
        reach = REACH * self.thickness * self.normal
        return volume.locate(points - reach)[1] & volume.locate(points + reach)[1]

    def measure_bands(self, volume: Volume, motion: np.ndarray, other: MeasuredStack) -> list[dict[str, float]]:
        """The power of a volume in the planes of this stack, over the stack's own, where another stack's slices show.

        Slices that lie d mm apart and cross the planes at an angle a show at multiples of sin(a)/d, across their lines
        in the plane. ``thin``: the volume is cut in the planes of the slices' centres and a third of a slice distance
        above and below. ``sliced``: it is cut through the slice profile, as the stack was; this hides what changes
        within a slice, and what data consistency removes. Both have the stack's window and its brightness, which is
        taken from ``sliced`` where there are fewer than half as many waves as slices.

        A thin plane has more detail and noise than a thick slice at all frequencies, so its power alone says little.
        Bands raise the power at the multiples above that beside them, where none belong. Bands below the
        stack's own noise are not seen, nor are those that anatomy modulates so much that they leave the disc.

        Args:
            volume: the volume.
            motion: of this stack onto the volume, (4, 4) in mm.
            other: the stack whose slices may show.

        Returns:
            For each multiple below the Nyquist frequency of the pixels: ``harmonic``; ``thin`` and ``sliced``, the
            volume's power in a disc of k-space around it over the stack's; ``thin_beside`` and ``sliced_beside``, the
            same between the multiples.
        """
        planes = [axis for axis in range(3) if axis != self.across]
        pixel = self.spacing[planes]
        lines = (self.stack.affine[:3, planes] / pixel).T @ other.normal / other.spacing[other.across]
        grid = np.stack(np.meshgrid(*map(np.arange, self.stack.voxels.shape), indexing="ij"), axis=-1).reshape(-1, 3)
        points = grid @ self.stack.affine[:3, :3].T + self.stack.affine[:3, 3]
        moved = apply_affine(motion, points)
        region = self.mask.ravel() & self.find_covered(volume, moved) & other.stack.locate(points)[1]
        windows = [make_window(each, pixel) for each in self._slice(region)]
        own = compute_power(self._slice(self.stack.voxels.ravel()), windows)
        moved = moved[region]

        def measure_power(cut: Volume, offset: float) -> np.ndarray:
            values = np.zeros(region.shape, np.float32)
            places = cut.locate(moved + offset * self.spacing[self.across] * self.normal)[0]
            values[region] = ndimage.map_coordinates(cut.voxels, places, order=3, mode="nearest", prefilter=False)
            return compute_power(self._slice(values), windows)

        profiled = volume.blur(self.normal, self.thickness / FWHM)
        thin, sliced = (
            Volume(ndimage.spline_filter(each.voxels, 3, output=np.float32), volume.affine)
            for each in (volume, profiled)
        )
        spectra = {
            "thin": sum(measure_power(thin, offset) for offset in (-1 / 3, 0, 1 / 3)) / 3,
            "sliced": measure_power(sliced, 0.0),
        }
        frequencies = np.stack(np.meshgrid(*map(fft.fftfreq, own.shape, pixel), indexing="ij"), axis=-1)
        length = np.linalg.norm(lines)
        coarse = np.linalg.norm(frequencies, axis=-1) < length / 2
        brightness = own[coarse].sum() / spectra["sliced"][coarse].sum()

        def compare_power(kind: str, multiple: float) -> float:
            disc = np.linalg.norm(frequencies - multiple * lines, axis=-1) < RADIUS * length
            return float(brightness * spectra[kind][disc].sum() / own[disc].sum())

        results: list[dict[str, float]] = []
        while np.all((len(results) + 1 + AWAY + RADIUS) * np.abs(lines) < 0.5 / pixel) and length * TAPER > 1:
            harmonic = len(results) + 1
            row: dict[str, float] = {"harmonic": harmonic}
            for kind in ("thin", "sliced"):
                beside = np.prod([compare_power(kind, harmonic + away) for away in (-AWAY, AWAY)])
                row |= {kind: compare_power(kind, harmonic), f"{kind}_beside": float(np.sqrt(beside))}
            results.append(row)
        return results

    def _slice(self, values: np.ndarray) -> np.ndarray:
        """Values of all voxels as images (slices, H, W)."""
        return np.moveaxis(values.reshape(self.stack.voxels.shape), self.across, 0)


def make_window(region: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """A window (H, W) that rises from the edge of a region to 1."""
    depth = ndimage.distance_transform_edt(np.pad(region, 1), sampling=pixel)[1:-1, 1:-1]
    return np.sin(np.pi / 2 * np.minimum(depth / TAPER, 1)) ** 2


def compute_power(images: np.ndarray, windows: list[np.ndarray]) -> np.ndarray:
    """The power spectrum (H, W) of images (slices, H, W) without their means, summed over those with a window."""
    power = np.zeros(images.shape[1:])
    for image, window in zip(images, windows, strict=True):
        if window.any():
            power += np.abs(fft.fft2(window * (image - np.average(image, weights=window)))) ** 2
    return power
