"""Random bodies as tissue fractions: shapes of any kind and size, so that a network learns edges and not an organ."""

from __future__ import annotations

import numpy as np

from .shapes import TissueFractions, compute_inside_share, make_random_band_fields, measure_distance_to_zero
from .signal import TISSUES

#: Tissues that fill regions; the others belong to bones, vessels and the air around.
_SOFT = ("wm", "gm", "csf", "fat", "muscle")
_SIZES = (96, 145)  # voxels along an axis, of which the upper limit is left out
_Distance = np.ndarray  # signed, in mm, negative inside


def make_body(spacing: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One random body: regions and lesions, and some of folds, bones, a spine, flat layers, membranes and vessels.

    A third of the bodies is surrounded by skin and air. In the others the field of view cuts through tissue.

    Args:
        spacing: isotropic voxel size in mm.
        rng: the body's random generator.

    Returns:
        Tissue fractions of shape (len(TISSUES), X, Y, Z), 96 to 144 voxels along each axis, and the 4x4 RAS affine.
    """
    shapes = _RandomShapes(tuple(int(n) for n in rng.integers(*_SIZES, 3)), spacing, rng)
    tissues = TissueFractions(shapes.shape, str(rng.choice(_SOFT)))
    # From organs to details: what is painted later lies over what was painted before.
    for kinds, least, most in (
        ((_paint_region,), 3, 6),
        ((_paint_folds, _paint_bone, _paint_spine, _paint_flat_layer), 2, 5),
        ((_paint_region, _paint_membrane, _paint_vessels), 3, 6),
        ((_paint_lesion,), 1, 4),
    ):
        for _ in range(rng.integers(least, most)):
            kinds[rng.integers(len(kinds))](tissues, shapes)
    if rng.random() < 1 / 3:
        _paint_surroundings(tissues, shapes)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -0.5 * spacing * (np.array(shapes.shape) - 1)
    return tissues.fractions, affine


class _RandomShapes:
    """Draws distances of random shapes in mm, and the share of voxels that is inside.

    The ramp of partial volume is 1 to 2.5 voxels wide, the same in all of a body.
    """

    def __init__(self, shape: tuple[int, ...], spacing: float, rng: np.random.Generator) -> None:
        self.shape, self.spacing, self.rng = shape, spacing, rng
        self.softness = rng.uniform(0.6, 1.45)
        # float32 coordinates in mm from the centre, which broadcast to the volume
        self.axes = [
            (spacing * (np.arange(n, dtype=np.float32) - n / 2)).reshape(np.roll((-1, 1, 1), i))
            for i, n in enumerate(shape)
        ]

    def sample_number(self, low: float, high: float) -> float:
        """A number with a uniform logarithm."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def make_random_surface(self, wavelength: float, level: float = 0.0) -> _Distance:
        """Distance to a level of a random field, rough by a finer one; both in units of their deviation."""
        coarse, fine = make_random_band_fields(self.shape, self.spacing, (wavelength, wavelength / 2.7), self.rng)
        field = coarse + np.float32(self.rng.uniform(0, 0.4)) * fine - np.float32(level)
        return measure_distance_to_zero(field, self.spacing, 1.5 / wavelength)[0]

    def make_random_ellipsoid(self, low: float, high: float) -> _Distance:
        """Distance to a turned ellipsoid anywhere, with half axes in mm in a range; too small along the longer ones."""
        turn = np.linalg.qr(self.rng.standard_normal((3, 3)))[0]
        centre = [self.rng.uniform(axis.min(), axis.max()) for axis in self.axes]
        radii = [self.sample_number(low, high) for _ in range(3)]
        x, y, z = (axis - np.float32(place) for axis, place in zip(self.axes, centre, strict=True))
        lines = [(row[0] * x + row[1] * y + row[2] * z).astype(np.float32) for row in turn]
        r = np.sqrt(sum((line / np.float32(radius)) ** 2 for line, radius in zip(lines, radii, strict=True)))
        return (r - 1) * np.float32(min(radii))

    def make_random_plane(self) -> _Distance:
        """Distance to a plane in any direction, at most a third of the volume off its centre."""
        normal = self.rng.standard_normal(3)
        normal /= np.linalg.norm(normal)
        away = self.rng.uniform(-1, 1) * min(axis.max() for axis in self.axes) * 2 / 3
        return sum(axis * np.float32(n) for axis, n in zip(self.axes, normal, strict=True)) - np.float32(away)

    def compute_share(self, distance: _Distance) -> np.ndarray:
        """Share of each voxel on the negative side."""
        return compute_inside_share(distance, self.softness * self.spacing)

    def choose(self, tissues: tuple[str, ...]) -> str:
        """One of some tissues."""
        return str(self.rng.choice(tissues))


def _paint_region(tissues: TissueFractions, shapes: _RandomShapes) -> None:
    distance = shapes.make_random_surface(shapes.sample_number(12, 120), shapes.rng.uniform(0, 1.3))
    tissues.paint(shapes.choose(_SOFT), shapes.compute_share(distance))


def _paint_folds(tissues: TissueFractions, shapes: _RandomShapes) -> None:
    """A cortex: a layer of one tissue with folds between two others, inside of a larger shape."""
    inside = shapes.make_random_surface(shapes.sample_number(50, 120), shapes.rng.uniform(-0.5, 0.5))
    sheet = shapes.make_random_surface(shapes.sample_number(7, 18))
    thick, gap = shapes.rng.uniform(1.5, 4), shapes.rng.uniform(0.4, 1.5)
    white = np.maximum(inside + np.float32(thick), np.float32(gap + thick) - np.abs(sheet))
    order = shapes.rng.permutation(_SOFT)
    tissues.paint(str(order[0]), shapes.compute_share(inside))
    tissues.paint(str(order[1]), shapes.compute_share(np.maximum(inside, np.float32(gap) - np.abs(sheet))))
    tissues.paint(str(order[2]), shapes.compute_share(white))


def _paint_membrane(tissues: TissueFractions, shapes: _RandomShapes) -> None:
    """Fascia, fat septa, dura: a surface of 0.4 to 3 mm, in a part of the volume."""
    sheet = np.abs(shapes.make_random_surface(shapes.sample_number(15, 80))) - np.float32(
        shapes.sample_number(0.2, 1.5)
    )
    where = shapes.make_random_surface(60.0, shapes.rng.uniform(-1, 0.5))
    tissues.paint(shapes.choose((*_SOFT, "bone")), shapes.compute_share(np.maximum(sheet, where)))


def _paint_vessels(tissues: TissueFractions, shapes: _RandomShapes) -> None:
    """Vessels, nerves and ducts: where two surfaces meet, with a radius of 0.5 to 3 mm."""
    wavelength = shapes.sample_number(15, 60)
    a, b = shapes.make_random_surface(wavelength), shapes.make_random_surface(1.4 * wavelength)
    tube = np.hypot(a, b) - np.float32(shapes.sample_number(0.5, 3))
    tissues.paint(shapes.choose(("blood", "blood", "csf", "wm", "air")), shapes.compute_share(tube))


def _paint_cortical_bone(tissues: TissueFractions, shapes: _RandomShapes, distance: _Distance) -> None:
    """Cortical bone around marrow or fat: 0.6 to 3 mm, and more along the long axes of an ellipsoid."""
    tissues.paint("bone", shapes.compute_share(distance))
    marrow = shapes.compute_share(distance + np.float32(shapes.sample_number(0.6, 3)))
    tissues.paint(shapes.choose(("marrow", "marrow", "fat")), marrow)


def _paint_bone(tissues: TissueFractions, shapes: _RandomShapes) -> None:
    if shapes.rng.random() < 0.5:
        distance = shapes.make_random_ellipsoid(5, 60)
    else:
        distance = shapes.make_random_surface(shapes.sample_number(30, 90), shapes.rng.uniform(0.7, 1.3))
    _paint_cortical_bone(tissues, shapes, distance)


def _paint_spine(tissues: TissueFractions, shapes: _RandomShapes) -> None:
    """A bent column of bones with discs between them, and a canal with fluid and a cord behind it."""
    along, side, front = (shapes.axes[axis] for axis in shapes.rng.permutation(3))
    phase, bend = shapes.rng.uniform(0, 2 * np.pi), shapes.rng.uniform(0, 8)
    front = front + np.float32(bend) * np.sin(along / np.float32(35) + np.float32(phase))
    size, radius = shapes.sample_number(10, 32), shapes.sample_number(6, 22)
    disc = shapes.rng.uniform(0.12, 0.35) * size
    place = np.abs(np.mod(along + np.float32(phase), np.float32(size)) - np.float32(size / 2))
    round_off = np.hypot(side, front) - np.float32(radius)
    tissues.paint(shapes.choose(_SOFT), shapes.compute_share(round_off))
    _paint_cortical_bone(tissues, shapes, np.maximum(round_off, place - np.float32((size - disc) / 2)))
    canal = np.hypot(side, front - np.float32(1.5 * radius))
    tissues.paint(shapes.choose(("csf", "fat")), shapes.compute_share(canal - np.float32(0.45 * radius) + 0 * along))
    tissues.paint(shapes.choose(("wm", "gm")), shapes.compute_share(canal - np.float32(0.25 * radius) + 0 * along))


def _paint_flat_layer(tissues: TissueFractions, shapes: _RandomShapes) -> None:
    """A layer with flat sides: fat, cartilage, a muscle, an implant."""
    layer = np.abs(shapes.make_random_plane()) - np.float32(shapes.sample_number(1, 25))
    tissues.paint(shapes.choose((*_SOFT, "bone")), shapes.compute_share(layer))


def _paint_lesion(tissues: TissueFractions, shapes: _RandomShapes) -> None:
    """An ellipsoid of 1 to 8 mm, of any tissue, that may have only a part of its contrast."""
    share = shapes.compute_share(shapes.make_random_ellipsoid(1, 8))
    tissues.paint(shapes.choose(TISSUES), np.float32(shapes.rng.uniform(0.3, 1)) * share)


def _paint_surroundings(tissues: TissueFractions, shapes: _RandomShapes) -> None:
    """Fat, skin and air around the body."""
    lengths = [np.float32(axis.max() * shapes.rng.uniform(0.75, 1.3)) for axis in shapes.axes]
    r = np.sqrt(sum((axis / length) ** 2 for axis, length in zip(shapes.axes, lengths, strict=True)))
    outside = (1 - r) * min(lengths) + np.float32(0.1) * shapes.make_random_surface(60.0)
    fat = shapes.sample_number(1, 15)
    tissues.paint("fat", shapes.compute_share(outside - np.float32(2 + fat)))
    tissues.paint("skin", shapes.compute_share(outside - np.float32(2)))
    tissues.paint("air", shapes.compute_share(outside))
