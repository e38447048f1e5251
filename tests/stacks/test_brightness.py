import numpy as np
import pytest
import torch

from common.stacks import BrightnessField, estimate_slice_gains


def test_a_field_is_found_and_goes_to_its_mean_where_the_stacks_do_not_overlap():
    """In 200 x 200 x 160 mm, with a bleeding that one of the two does not show."""
    rng = np.random.default_rng(0)
    shown = torch.from_numpy(rng.uniform(0.5, 1, (40, 40, 20))).float()
    x = torch.linspace(-1, 1, 40)[:, None, None]
    field = (0.3 + 0.5 * x).exp().expand(shown.shape)
    stack, seen = field * shown, torch.zeros_like(shown)
    stack[10:12, 20:22, 10] *= 3
    seen[:20] = 1
    found = BrightnessField(stack, shown, seen, (5, 5, 8))
    over = found.evaluate(shown.shape)
    assert float((over / field - 1)[4:16].abs().max()) < 0.06
    assert over[20:].min() >= field[:20].min() and over[20:].max() <= field[:20].max()
    assert over[-1].mean() == pytest.approx(found.mean, rel=0.02)
    assert found.mean == pytest.approx(float(field[:20].mean()), rel=0.1)
    finer = found.evaluate((80, 40, 20))
    assert torch.allclose((finer[::2] + finer[1::2]) / 2, over, rtol=0.01)
    flat = BrightnessField(7 * shown, shown, seen, (5, 5, 8)).evaluate((10, 10, 10))
    assert torch.allclose(flat, torch.tensor(7.0), rtol=1e-3)


def test_gains_of_slices():
    """A slice that shows nothing, or of which nothing is known, keeps its gain; gains stay in range."""
    shown = torch.rand(20, 20, 6, generator=torch.Generator().manual_seed(0))
    true = torch.tensor([1.0, 0.8, 1.25, 1.0, 5.0, 1.0])
    shown[..., 3], counts = 0, torch.ones_like(shown)
    counts[..., 5] = 0
    found = estimate_slice_gains(true * shown, shown, counts)
    assert torch.allclose(found, true.clamp(max=2.0), atol=0.03)
