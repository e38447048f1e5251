"""The precision of networks is the engine's."""

from types import SimpleNamespace

import torch
from torch import nn

from common.engines.validation import Validation
from common.runtime.precision import in_precision, plain


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.seen, self.scale = nn.Linear(2, 2), [], (2, 2, 1)

    def forward(self, x, turns=0):
        y = self.layer(x)
        self.seen.append(y.dtype)
        return y


def test_a_network_under_autocast_gives_float32_and_is_the_network_else():
    net, x = Net(), torch.rand(1, 2)
    cast = in_precision(net, "cpu", True, None)
    assert cast(x, turns=1).dtype == torch.float32 and cast.scale == (2, 2, 1)
    assert plain(cast) is net is plain(net)
    assert in_precision(net, "cpu", False, {"dtype": torch.float16}) is net
    in_precision(net, "cpu", True, {"dtype": torch.float16})(x)
    assert net.seen == [torch.bfloat16, torch.float16]


def test_validation_follows_the_training_unless_it_has_a_precision_of_its_own():
    bf16, fp16 = {"dtype": torch.bfloat16}, {"dtype": torch.float16}
    for own, expected in (({}, (True, bf16)), ({"amp": "false"}, (False, bf16)), ({"amp_kwargs": fp16}, (True, fp16))):
        validation = Validation(SimpleNamespace(device="cpu"), Net(), lambda x, network: network(x), **own)
        validation.follow(True, bf16)
        assert validation.precision == expected
