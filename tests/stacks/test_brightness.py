import numpy as np
import torch

from common.stacks import BrightnessField


def test_a_field_is_found_and_stays_in_range_where_the_stacks_do_not_overlap():
    rng = np.random.default_rng(0)
    shown = torch.from_numpy(rng.uniform(0.5, 1, (40, 40, 20)))
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None, None]
    field = (0.3 + 0.4 * x - 0.3 * x**2).exp()
    seen = torch.zeros_like(shown)
    seen[:20] = 1
    found = BrightnessField(field * shown, shown, seen, (2, 2, 4))
    over = found.evaluate(shown.shape)
    assert np.abs((over / field - 1)[4:16].numpy()).max() < 0.03
    assert over.min() >= field[:20].min() * 0.95 and over.max() <= field[:20].max() * 1.05
