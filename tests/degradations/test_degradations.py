"""What every degradation must satisfy; a new operator joins ``OPERATORS`` and inherits the checks."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Lambdad
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

import common.degradations
from common.degradations import (
    ComposeDegradations,
    Degradation,
    EllipticalKSpace,
    GaussianProfile,
    HammingFilter,
    InPlaneKernel,
    KSpaceTruncation,
    PartialFourier,
    RandomDegradation,
    RicianNoise,
    TurnedDegradation,
)
from common.physics.blur_kernels import make_bicubic_kernel, make_gaussian_kernel, make_zero_filling_kernel
from tests.refused import refused

HALVED = KSpaceTruncation((2, 2, 2))
OPERATORS = [
    common.degradations.BandLimit((2, 3, 1)),
    KSpaceTruncation((3, 2, 4)),
    EllipticalKSpace((2, 0, 1)),
    HammingFilter((1, 2)),
    PartialFourier(0.7, axis=1),
    GaussianProfile((1, 2, 4), fwhm=1.5),
    GaussianProfile((1.5, 1.5, 1), fwhm=0.7),
    GaussianProfile((2, 2, 3), offset=(0, 0.5, -0.3)),
    ComposeDegradations([GaussianProfile((1.5, 1.5, 1)), GaussianProfile((2, 2, 1))]),
    GaussianProfile((2, 3, 4)),
    InPlaneKernel(make_bicubic_kernel(3, 17, 1.0), 3, 1.0),
    InPlaneKernel(make_zero_filling_kernel(2, 33, 0.5), 2, 0.5),  # larger than the plane
    ComposeDegradations(  # as a clinical scan
        [GaussianProfile((1, 1, 2)), KSpaceTruncation((3, 2, 1)), EllipticalKSpace(), PartialFourier(0.75, 1)]
    ),
    ComposeDegradations([GaussianProfile((2, 1, 3)), GaussianProfile((2, 2, 2))]),
    TurnedDegradation(KSpaceTruncation((2, 4, 3)), (2, 0, 1), (True, False, True)),
]
every_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: type(operator).__name__)

# Even and odd sizes, and with and without a Nyquist sample after degradation, all multiples of every factor above.
SIZES, DTYPES = [(12, 12, 24), (12, 36, 12), (36, 12, 12)], [torch.float32, torch.float64, torch.float64]

# Voxel to world, oblique and mirrored.
AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("zx", [-70, 11], degrees=True).as_matrix() @ np.diag([-0.7, 0.9, 2.5])
AFFINE[:3, 3] = -91.3, 127.7, -208.1


def lr_size(operator, size):
    return tuple(round(n / f) for n, f in zip(size, operator.factors, strict=True))


@every_operator
@pytest.mark.parametrize(("size", "dtype"), [*zip(SIZES, DTYPES, strict=True)], ids=str)
def test_linear_with_its_transpose_and_a_constant_stays_constant(operator, size, dtype):
    x = torch.randn(2, 1, *size, dtype=dtype, requires_grad=True)
    y = torch.randn(2, 1, *lr_size(operator, size), dtype=dtype)
    a_x, at_y = operator(x), operator.adjoint(y)
    assert a_x.shape == y.shape and at_y.shape == x.shape and a_x.dtype == at_y.dtype == dtype
    left, right = (a_x * y).double().sum(), (x * at_y).double().sum()
    scale = a_x.double().norm() * y.double().norm()
    assert abs(left - right) <= (1e-5 if dtype == torch.float32 else 1e-12) * scale
    torch.testing.assert_close(torch.autograd.grad(a_x, x, y)[0], at_y)
    torch.testing.assert_close(operator(torch.full_like(x, 0.3)), torch.full_like(y, 0.3))
    # Batches do not mix, and may be left out.
    torch.testing.assert_close(operator(x[0, 0]), a_x[0, 0])
    torch.testing.assert_close(operator(2 * x[:1] - 3 * x[1:]), 2 * a_x[:1] - 3 * a_x[1:])


@every_operator
def test_affines_go_there_and_back(operator):
    for kind in (np.asarray, torch.as_tensor):
        lr_affine = operator.compute_lr_affine(kind(AFFINE))
        assert type(lr_affine) is type(kind(AFFINE))
        assert np.abs(np.asarray(operator.compute_hr_affine(lr_affine)) - AFFINE).max() < 1e-10
        voxel_size = np.array([0.7, 0.9, 2.5]) * operator.factors
        np.testing.assert_allclose(np.linalg.norm(np.asarray(lr_affine)[:3, :3], axis=0), voxel_size)
    hr = MetaTensor(torch.rand(1, *SIZES[0]), affine=AFFINE, meta={"filename_or_obj": "a.nii.gz"})
    lr = Lambdad(keys="lr", func=operator)({"lr": hr})["lr"]
    np.testing.assert_allclose(lr.affine, operator.compute_lr_affine(AFFINE))
    assert lr.meta["filename_or_obj"] == "a.nii.gz"
    np.testing.assert_allclose(hr.affine, AFFINE, err_msg="the input's affine must not change")
    np.testing.assert_allclose(operator.adjoint(lr).affine, AFFINE, atol=1e-9)


@every_operator
def test_a_blob_stays_where_it_is_in_the_world(operator):
    centre, width = np.array([23.3, 24.6, 22.9]), 4.5
    distance = np.linalg.norm(np.moveaxis(np.indices((48, 48, 48)), 0, -1) - centre, axis=-1)
    hr = torch.from_numpy(np.exp(-((distance / width) ** 2) / 2))
    both = ((hr, AFFINE), (operator(hr), operator.compute_lr_affine(AFFINE)))
    places = [affine[:3, :3] @ center_of_mass(volume.numpy()) + affine[:3, 3] for volume, affine in both]
    assert np.abs(np.linalg.solve(AFFINE[:3, :3], np.subtract(*places))).max() < 0.02


@every_operator
@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_float32_agrees_with_float64_on_each_device_and_half_precision_is_computed_in_it(operator, device):
    x, y = torch.rand(1, *SIZES[0]).double(), torch.rand(1, *lr_size(operator, SIZES[0])).double()
    for call, volume in ((operator, x), (operator.adjoint, y)):
        result = call(volume.float().to(device)).cpu()
        torch.testing.assert_close(result, call(volume).float(), rtol=1e-5, atol=1e-5)
    x = x.float()
    for dtype in (torch.bfloat16, torch.float16):
        low = operator(x.to(dtype))
        assert low.dtype == dtype
        torch.testing.assert_close(low, operator(x.to(dtype).float()).to(dtype), rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = operator(x)
    torch.testing.assert_close(under_autocast, operator(x), rtol=0, atol=0)


def test_meta_tensors_in_a_batch():
    operator, affines = GaussianProfile((2, 2, 2)), [np.diag([0.7, 0.9, 2.5, 1]), AFFINE]
    batch = next(iter(DataLoader([MetaTensor(torch.rand(1, 4, 4, 4), affine=a) for a in affines], batch_size=2)))
    np.testing.assert_allclose(operator(batch).affine, np.stack([operator.compute_lr_affine(a) for a in affines]))


def test_refused():
    for wrong in ((2, 2), (2, 2, 0), (2, 2, 1.5), (2, -1, 2), (True, 2, 2), "221", 2):
        refused(lambda wrong=wrong: KSpaceTruncation(wrong), ValueError, wrong)
    for wrong in ((2, 2, 0.5), (2, 2), (2, 2, float("inf"))):
        refused(lambda wrong=wrong: GaussianProfile(wrong), ValueError, "three numbers of at least 1", wrong)
    refused(lambda: GaussianProfile((2, 2, 1), fwhm=0), ValueError, "fwhm", 0)
    refused(lambda: GaussianProfile((2, 2, 1), offset=(0, 0, 0.5)), ValueError, "(0.0, 0.0, 0.5)", "0 along axes")
    refused(lambda: EllipticalKSpace((1,)), ValueError, "(1,)")
    refused(lambda: EllipticalKSpace((1, 1)), ValueError, "(1, 1)")
    refused(lambda: PartialFourier(0.5, axis=0), ValueError, "fraction", 0.5)
    refused(lambda: PartialFourier(1.01, axis=0), ValueError, "fraction", 1.01)
    refused(lambda: PartialFourier(0.75, axis=3), ValueError, "axes", "(3,)")
    refused(lambda: RicianNoise(-0.1), ValueError, "sigma", -0.1)
    refused(lambda: ComposeDegradations([]), ValueError, "at least one")
    for others, word in (([GaussianProfile((2, 2, 2))], 0.5), ([KSpaceTruncation((2, 2, 1))], "(2, 2, 1)")):
        refused(lambda others=others: RandomDegradation([HALVED, *others]), ValueError, word)
    refused(lambda: RandomDegradation([]), ValueError, "none")
    six = ComposeDegradations([KSpaceTruncation((1, 2, 1)), GaussianProfile((1, 3, 1))])
    pad = "DivisiblePad(k=(1, 6, 1), method='end')"
    refused(lambda: six(torch.rand(1, 12, 15, 12)), ValueError, "axis 1 has 15 voxels", "factor 6", pad)
    refused(lambda: six(torch.rand(12, 12)), ValueError, "(..., X, Y, Z)", "(12, 12)")
    refused(lambda: six(torch.zeros(1, 12, 12, 12, dtype=torch.complex64)), TypeError, "complex64")
    noise = RicianNoise(0.1)
    for one, word in ((noise, "magnitude"), (ComposeDegradations([HALVED, noise]), "step 1 (RicianNoise)")):
        refused(lambda one=one: one.adjoint(torch.rand(1, 4, 4, 4)), TypeError, word)
    refused(lambda: RandomDegradation([HALVED]).adjoint(torch.rand(1, 4, 4, 4)), TypeError, "RandomDegradation")


def test_a_random_degradation_belongs_to_the_volume():
    kinds = [HALVED, ComposeDegradations([HALVED, PartialFourier(0.6, 1)])]
    volumes, drawn = torch.rand(40, 1, 8, 8, 8), RandomDegradation(kinds, seed=3)
    together = drawn(volumes)
    each = [[torch.equal(lr, kind(hr)) for kind in kinds] for hr, lr in zip(volumes, together, strict=True)]
    assert all(sum(one) == 1 for one in each)
    assert min(sum(column) for column in zip(*each, strict=True)) > 8  # of 40, each with probability 1/2
    # Alone, in another order or process, it is the same; with another seed it is not.
    assert torch.equal(torch.stack([RandomDegradation(kinds, seed=3)(hr) for hr in volumes.flip(0)]).flip(0), together)
    assert not torch.equal(RandomDegradation(kinds, seed=4)(volumes), together)
    np.testing.assert_allclose(drawn.compute_lr_affine(np.eye(4)), kinds[0].compute_lr_affine(np.eye(4)))


def test_composition_is_its_steps():
    steps = [GaussianProfile((1, 1, 3)), KSpaceTruncation((2, 2, 1)), PartialFourier(0.75, 0)]
    composed, lr_affine = ComposeDegradations(steps), AFFINE
    hr = lr = torch.rand(1, 12, 12, 12)
    for step in steps:
        lr, lr_affine = step(lr), step.compute_lr_affine(lr_affine)
    torch.testing.assert_close(composed(hr), lr)
    np.testing.assert_allclose(composed.compute_lr_affine(AFFINE), lr_affine)


@pytest.mark.parametrize("stages", [2, 3])
def test_stages_of_real_factors_end_on_the_grid_of_the_whole(stages):
    """Cascade of Iwamoto et al. 2022: s^(1/r) r times is s, in place and, with lambda = 2, nearly in blur."""
    stage = GaussianProfile((2 ** (1 / stages), 2 ** (1 / stages), 1), fwhm=2**-0.5)
    composed, whole = ComposeDegradations([stage] * stages), GaussianProfile((2, 2, 1))
    assert composed.factors == whole.factors == (2, 2, 1)
    np.testing.assert_allclose(composed.compute_lr_affine(AFFINE), whole.compute_lr_affine(AFFINE), atol=1e-9)
    y, x = np.meshgrid(np.linspace(0, 3, 64), np.linspace(0, 3, 64))
    hr = torch.from_numpy(np.sin(x**2) * np.cos(y * 3))[None, ..., None]
    assert composed(hr).shape == whole(hr).shape == (1, 32, 32, 1)
    inner = (slice(None), slice(2, -2), slice(2, -2))
    assert (composed(hr) - whole(hr))[inner].abs().max() < 0.03
    assert (whole(hr.roll(1, dims=1)) - whole(hr))[inner].abs().max() > 0.1, "the test must see half an LR voxel"
    for n in range(10, 60):  # also where no stage divides it: up and down again is the same grid
        (size, _, _) = stage.compute_hr_size((n, n, 1))
        assert stage.compute_lr_size((size, size, 1)) == (n, n, 1)


def test_every_public_operator_is_checked_here():
    flat = {type(part) for operator in OPERATORS for part in operator.modules() if isinstance(part, Degradation)}
    public = vars(common.degradations).values()
    operators = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Degradation)}
    assert operators - {Degradation, common.degradations.KSpaceFilter, RandomDegradation, RicianNoise} == flat


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(common.degradations.__path__)])
def test_docstring_examples(module):
    assert doctest.testmod(importlib.import_module(f"common.degradations.{module}")).failed == 0


def test_what_treats_mirrored_and_turned_volumes_alike():
    alike = [GaussianProfile((2, 2, 1)), GaussianProfile((4, 4, 1))]
    others = [ComposeDegradations([alike[0], other]) for other in (PartialFourier(0.625, 1), RicianNoise(0.02, seed=0))]
    others += [InPlaneKernel(make_gaussian_kernel((2.0, 1.0), 30, offset=0.5), 2, 0.5), GaussianProfile((2, 1, 1))]
    others += [KSpaceTruncation((2, 2, 1))]  # LR voxel i lies on HR voxel s i
    assert [each.commutes_with_rotations() for each in (*alike, *others)] == [True] * 2 + [False] * 5
