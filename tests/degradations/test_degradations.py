"""What every degradation must satisfy; a new operator joins ``OPERATORS`` and inherits the checks."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Lambdad
from scipy.spatial.transform import Rotation

import common.degradations
from common.blur_kernels import bicubic_kernel, gaussian_kernel, zero_filling_kernel
from common.degradations import (
    BandLimit,
    BlockAverage,
    ComposeDegradations,
    Degradation,
    EllipticalKSpace,
    GaussianProfile,
    InPlaneKernel,
    KSpaceTruncation,
    PartialFourier,
    RandomDegradation,
    RicianNoise,
)

OPERATORS = {
    "band_limit": lambda: BandLimit((2, 3, 1)),
    "truncation_221": lambda: KSpaceTruncation((2, 2, 1)),
    "truncation_222": lambda: KSpaceTruncation((2, 2, 2)),
    "truncation_411": lambda: KSpaceTruncation((4, 1, 1)),
    "truncation_3_axes": lambda: KSpaceTruncation((3, 2, 4)),
    "elliptical": lambda: EllipticalKSpace(),
    "elliptical_3_axes": lambda: EllipticalKSpace((2, 0, 1)),
    "partial_fourier": lambda: PartialFourier(fraction=0.7, axis=1),
    "partial_fourier_whole": lambda: PartialFourier(fraction=1.0, axis=0),
    "slice_profile": lambda: GaussianProfile((1, 1, 4)),
    "plane_profile": lambda: GaussianProfile((2, 2, 1)),
    "real_factors": lambda: GaussianProfile((1.5, 1.5, 1), fwhm=0.7),
    "real_factors_composed": lambda: ComposeDegradations([GaussianProfile((1.5, 1.5, 1)), GaussianProfile((2, 2, 1))]),
    "slice_profile_overlapping": lambda: GaussianProfile((3, 1, 1), fwhm=1.5),
    "block_average": lambda: BlockAverage((2, 3, 4)),
    "plane_kernel": lambda: InPlaneKernel(gaussian_kernel((2.0, 1.0), angle=30), 2),
    "plane_kernel_offset": lambda: InPlaneKernel(bicubic_kernel(3, 17, 1.0), 3, 1.0),
    "plane_kernel_larger_than_the_plane": lambda: InPlaneKernel(zero_filling_kernel(2, 33, 0.5), 2, 0.5),
    "clinical": lambda: ComposeDegradations(
        [GaussianProfile((1, 1, 2)), KSpaceTruncation((3, 2, 1)), EllipticalKSpace(), PartialFourier(0.75, 1)]
    ),
    "offsets_of_two_steps": lambda: ComposeDegradations([BlockAverage((2, 1, 3)), BlockAverage((2, 2, 2))]),
}
every_operator = pytest.mark.parametrize("operator", [build() for build in OPERATORS.values()], ids=list(OPERATORS))

# Even and odd sizes, and with and without a Nyquist sample after degradation, all multiples of every factor above.
SIZES = [(12, 12, 24), (12, 36, 12), (36, 12, 12)]


def lr_size(operator, size):
    return tuple(round(n / f) for n, f in zip(size, operator.factors, strict=True))


def affine_of(kind):
    """Voxel-to-world affines as scanners write them."""
    spacing = np.diag([0.7, 0.9, 2.5])
    linear = {
        "ras": spacing,
        "lps": np.diag([-1, -1, 1]) @ spacing,
        "pir": np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]) @ spacing,
        "oblique": Rotation.from_euler("xyz", [17, -31, 40], degrees=True).as_matrix() @ spacing,
        "oblique_flipped": Rotation.from_euler("zx", [-70, 11], degrees=True).as_matrix()
        @ np.diag([-1, 1, 1])
        @ spacing,
    }[kind]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, (-91.3, 127.7, -208.1)
    return affine


every_affine = pytest.mark.parametrize(
    "affine", [affine_of(k) for k in ("ras", "lps", "pir", "oblique", "oblique_flipped")]
)


@every_operator
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint_satisfies_the_dot_product(operator, size, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 1, *size, dtype=dtype)
    y = torch.randn(2, 1, *lr_size(operator, size), dtype=dtype)
    a_x, at_y = operator(x), operator.adjoint(y)
    assert a_x.shape == y.shape and at_y.shape == x.shape and a_x.dtype == at_y.dtype == dtype
    left, right = (a_x * y).double().sum(), (x * at_y).double().sum()
    scale = a_x.double().norm() * y.double().norm()
    assert abs(left - right) <= (1e-5 if dtype == torch.float32 else 1e-12) * scale


@every_operator
def test_gradient_is_the_adjoint(operator):
    x = torch.randn(1, *SIZES[0], dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, *lr_size(operator, SIZES[0]), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(operator(x), x, y)
    torch.testing.assert_close(gradient, operator.adjoint(y))


@every_operator
def test_linear_and_batches_do_not_mix(operator):
    a, b = torch.randn(2, 1, 1, *SIZES[1], dtype=torch.float64)
    torch.testing.assert_close(operator(2 * a - 3 * b), 2 * operator(a) - 3 * operator(b))
    torch.testing.assert_close(operator(torch.cat([a, b]))[1:], operator(b))
    torch.testing.assert_close(operator(a)[0, 0], operator(a[0, 0]))


@every_operator
@pytest.mark.parametrize("size", SIZES)
def test_constant_stays_constant(operator, size):
    lr = operator(torch.full((1, *size), 0.3, dtype=torch.float64))
    torch.testing.assert_close(lr, torch.full_like(lr, 0.3))


@every_operator
@every_affine
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_affine_round_trip(operator, affine, kind):
    lr_affine = operator.lr_affine(kind(affine))
    assert type(lr_affine) is type(kind(affine))
    assert np.abs(np.asarray(operator.hr_affine(lr_affine)) - affine).max() < 1e-10
    voxel_size = np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(lr_affine)[:3, :3], axis=0), voxel_size * operator.factors)


@every_operator
@pytest.mark.parametrize("affine", [affine_of("pir"), affine_of("oblique_flipped")])
def test_a_blob_stays_where_it_is_in_the_world(operator, affine):
    size = np.array([48, 48, 48])
    centre, width = np.array([23.3, 24.6, 22.9]), 4.5
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    hr = torch.from_numpy(np.exp(-((index - centre) ** 2).sum(-1) / (2 * width**2)))

    def centre_of_mass(volume, affine):
        grid = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1)
        voxel = (grid * volume.numpy()[..., None]).sum((0, 1, 2)) / volume.sum().item()
        return affine[:3, :3] @ voxel + affine[:3, 3]

    moved = centre_of_mass(operator(hr), operator.lr_affine(affine)) - centre_of_mass(hr, affine)
    assert np.abs(np.linalg.solve(affine[:3, :3], moved)).max() < 0.02


@every_operator
def test_half_precision_is_computed_in_float32(operator):
    x = torch.rand(1, *SIZES[0])
    for dtype in (torch.bfloat16, torch.float16):
        low = operator(x.to(dtype))
        assert low.dtype == dtype
        torch.testing.assert_close(low, operator(x.to(dtype).float()).to(dtype), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = operator(x)
    torch.testing.assert_close(under_autocast, operator(x), rtol=0, atol=0)


@every_operator
@every_affine
def test_meta_tensors_carry_the_affine_of_their_grid(operator, affine):
    hr = MetaTensor(torch.rand(1, *SIZES[0]), affine=affine, meta={"filename_or_obj": "a.nii.gz"})
    lr = Lambdad(keys="lr", func=operator)({"lr": hr})["lr"]
    np.testing.assert_allclose(lr.affine, operator.lr_affine(affine))
    assert lr.meta["filename_or_obj"] == "a.nii.gz"
    np.testing.assert_allclose(hr.affine, affine, err_msg="the input's affine must not change")
    np.testing.assert_allclose(operator.adjoint(lr).affine, affine, atol=1e-9)


def test_meta_tensors_in_a_batch():
    operator = BlockAverage((2, 2, 2))
    affines = [affine_of("ras"), affine_of("oblique")]
    batch = next(iter(DataLoader([MetaTensor(torch.rand(1, 4, 4, 4), affine=a) for a in affines], batch_size=2)))
    np.testing.assert_allclose(operator(batch).affine, np.stack([operator.lr_affine(a) for a in affines]))


@pytest.mark.parametrize("factors", [(2, 2), (2, 2, 0), (2, 2, 1.5), (2, -1, 2), (True, 2, 2), "221", 2])
@pytest.mark.parametrize("operator", [KSpaceTruncation, BlockAverage])
def test_wrong_factors(operator, factors):
    with pytest.raises(ValueError, match="three positive integers"):
        operator(factors)


def test_wrong_volumes():
    operator = ComposeDegradations([KSpaceTruncation((1, 2, 1)), BlockAverage((1, 3, 1))])
    with pytest.raises(
        ValueError, match=r"axis 1 has 15 voxels.*factor 6.*DivisiblePad\(k=\(1, 6, 1\), method='end'\)"
    ):
        operator(torch.rand(1, 12, 15, 12))
    with pytest.raises(ValueError, match=r"\(\.\.\., X, Y, Z\)"):
        operator(torch.rand(12, 12))
    with pytest.raises(TypeError, match="complex64"):
        operator(torch.zeros(1, 12, 12, 12, dtype=torch.complex64))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="two or three axes"):
        EllipticalKSpace((1,))
    with pytest.raises(ValueError, match="distinct spatial axes"):
        EllipticalKSpace((1, 1))
    for fraction in (0.5, 1.01):
        with pytest.raises(ValueError, match="fraction"):
            PartialFourier(fraction, axis=0)
    with pytest.raises(ValueError, match="axes"):
        PartialFourier(0.75, axis=3)
    for factors in ((2, 2, 0.5), (2, 2), (2, 2, float("inf"))):
        with pytest.raises(ValueError, match="three numbers of at least 1"):
            GaussianProfile(factors)
    with pytest.raises(ValueError, match="fwhm"):
        GaussianProfile((2, 2, 1), fwhm=0)
    with pytest.raises(ValueError, match="sigma"):
        RicianNoise(-0.1)
    with pytest.raises(ValueError, match="at least one"):
        ComposeDegradations([])


def test_operators_without_adjoint_say_why():
    with pytest.raises(TypeError, match="magnitude"):
        RicianNoise(0.1).adjoint(torch.rand(1, 4, 4, 4))
    composed = ComposeDegradations([KSpaceTruncation((2, 2, 2)), RicianNoise(0.1)])
    with pytest.raises(TypeError, match=r"step 1 \(RicianNoise\)"):
        composed.adjoint(torch.rand(1, 4, 4, 4))


def test_a_random_degradation_belongs_to_the_volume():
    kinds = [KSpaceTruncation((2, 2, 2)), ComposeDegradations([KSpaceTruncation((2, 2, 2)), PartialFourier(0.6, 1)])]
    volumes = torch.rand(40, 1, 8, 8, 8)
    drawn = RandomDegradation(kinds, seed=3)
    together = drawn(volumes)
    each = [[torch.equal(lr, kind(hr)) for kind in kinds] for hr, lr in zip(volumes, together, strict=True)]
    assert all(sum(one) == 1 for one in each)
    counts = [sum(column) for column in zip(*each, strict=True)]
    assert min(counts) > 8  # of 40, each with probability 1/2
    # Alone, in another order or process, it is the same; with another seed it is not.
    assert torch.equal(torch.stack([RandomDegradation(kinds, seed=3)(hr) for hr in volumes.flip(0)]).flip(0), together)
    assert not torch.equal(RandomDegradation(kinds, seed=4)(volumes), together)
    np.testing.assert_allclose(drawn.lr_affine(np.eye(4)), kinds[0].lr_affine(np.eye(4)))
    for wrong in ([], [KSpaceTruncation((2, 2, 2)), BlockAverage((2, 2, 2))], [kinds[0], KSpaceTruncation((2, 2, 1))]):
        with pytest.raises(ValueError, match="same factors and offset, got"):
            RandomDegradation(wrong)
    with pytest.raises(TypeError, match="RandomDegradation has no adjoint"):
        drawn.adjoint(volumes)


def test_composition_is_its_steps():
    steps = [GaussianProfile((1, 1, 3)), KSpaceTruncation((2, 2, 1)), PartialFourier(0.75, 0)]
    hr, affine = torch.rand(1, 12, 12, 12), affine_of("oblique")
    lr, lr_affine = hr, affine
    for step in steps:
        lr, lr_affine = step(lr), step.lr_affine(lr_affine)
    composed = ComposeDegradations(steps)
    torch.testing.assert_close(composed(hr), lr)
    np.testing.assert_allclose(composed.lr_affine(affine), lr_affine)


@every_affine
@pytest.mark.parametrize("stages", [2, 3])
def test_stages_of_real_factors_end_on_the_grid_of_the_whole(affine, stages):
    """Cascade of Iwamoto et al. 2022: s^(1/r) r times is s, in place and, with lambda = 2, nearly in blur."""
    stage = GaussianProfile((2 ** (1 / stages), 2 ** (1 / stages), 1), fwhm=2**-0.5)
    composed, whole = ComposeDegradations([stage] * stages), GaussianProfile((2, 2, 1))
    assert composed.factors == whole.factors == (2, 2, 1)
    np.testing.assert_allclose(composed.lr_affine(affine), whole.lr_affine(affine), atol=1e-9)
    y, x = np.meshgrid(np.linspace(0, 3, 64), np.linspace(0, 3, 64))
    hr = torch.from_numpy(np.sin(x**2) * np.cos(y * 3))[None, ..., None]
    assert composed(hr).shape == whole(hr).shape == (1, 32, 32, 1)
    inner = (slice(None), slice(2, -2), slice(2, -2))
    assert (composed(hr) - whole(hr))[inner].abs().max() < 0.03
    shifted = (whole(hr.roll(1, dims=1)) - whole(hr))[inner].abs().max()
    assert shifted > 0.1, "the test must see half an LR voxel"
    # A size that no stage divides: up and down again is the same grid.
    for n in range(10, 60):
        (size, _, _) = stage.hr_size((n, n, 1))
        assert stage.lr_size((size, size, 1)) == (n, n, 1)


def test_every_public_operator_is_checked_here():
    flat = [d for build in OPERATORS.values() for d in build().modules() if isinstance(d, Degradation)]
    public = {getattr(common.degradations, name) for name in common.degradations.__all__}
    # Interpolated keeps the grid, so it is no operator from HR to LR: test_interpolated.py; nor is what finds one for a
    # scan: test_fitted_profile.py
    others = {common.degradations.interpolated, common.degradations.Interpolated}
    others |= {common.degradations.FittedProfile, common.degradations.slice_profile, common.degradations.told_width}
    abstract_or_nonlinear = {Degradation, common.degradations.KSpaceFilter, RandomDegradation, RicianNoise}
    assert public - others - abstract_or_nonlinear == {type(d) for d in flat}


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(common.degradations.__path__)])
def test_docstring_examples(module):
    assert doctest.testmod(importlib.import_module(f"common.degradations.{module}")).failed == 0


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
@every_operator
def test_float32_on_each_device_agrees_with_float64(operator, device):
    x, y = torch.rand(1, *SIZES[0]).double(), torch.rand(1, *lr_size(operator, SIZES[0])).double()
    for call, volume in ((operator, x), (operator.adjoint, y)):
        result = call(volume.float().to(device)).cpu()
        torch.testing.assert_close(result, call(volume).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "degradation, alike",
    [
        (GaussianProfile((2, 2, 1)), True),
        (BlockAverage((4, 4, 1)), True),
        (KSpaceTruncation((2, 2, 1)), False),  # LR voxel i lies on HR voxel s i
        (GaussianProfile((2, 1, 1)), False),
        (ComposeDegradations([GaussianProfile((2, 2, 1)), PartialFourier(0.625, 1)]), False),
        (InPlaneKernel(gaussian_kernel((2.0, 1.0), 30, offset=0.5), 2, 0.5), False),
        (ComposeDegradations([GaussianProfile((2, 2, 1)), RicianNoise(0.02, seed=0)]), False),
    ],
    ids=str,
)
def test_what_treats_mirrored_and_turned_volumes_alike(degradation, alike):
    assert degradation.turns_alike() is alike
