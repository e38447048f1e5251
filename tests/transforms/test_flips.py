"""HR is flipped before LR is made of it, and never with its LR."""

import torch
from monai.transforms import Compose
from monai.utils import set_determinism

from common.transforms import RandFlipHRd


def test_hr_is_flipped_unless_it_has_an_lr_of_its_own():
    set_determinism(0)
    flips = Compose([RandFlipHRd("hr", prob=0.5, spatial_axis=axis) for axis in range(3)])
    set_determinism(None)
    hr = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert len({tuple(flips({"hr": hr.clone()})["hr"].flatten().tolist()) for _ in range(40)}) == 8
    for _ in range(10):
        pair = flips({"hr": hr.clone(), "lr": hr})
        assert torch.equal(pair["hr"], hr) and pair["lr"] is hr
