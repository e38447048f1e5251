"""The precision of networks is the engine's."""

import pytest
import torch
from monai.engines import SupervisedEvaluator
from torch import nn
from torch.utils.data import DataLoader

from common.data import prepare_lr_hr
from common.engines.training_handlers import adapt_validator
from common.runtime import precision
from common.runtime.precision import apply_precision, choose_autocast, unwrap_autocast


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
    cast = apply_precision(net, "cpu", True, None)
    assert cast(x, turns=1).dtype == torch.float32 and cast.scale == (2, 2, 1)
    assert unwrap_autocast(cast) is net is unwrap_autocast(net)
    assert apply_precision(net, "cpu", False, {"dtype": torch.float16}) is net
    apply_precision(net, "cpu", True, {"dtype": torch.float16})(x)
    assert net.seen == [torch.bfloat16, torch.float16]


def test_validation_runs_in_the_precision_of_its_training_and_of_its_next_stage():
    net, pair = Net(), {"lr": torch.rand(2), "hr": torch.rand(2)}
    how = {"prepare_batch": prepare_lr_hr, "inferer": lambda x, network: network(x)}
    evaluator = SupervisedEvaluator("cpu", DataLoader([pair]), net, **how)
    for amp, dtype in ((True, torch.float16), (True, torch.bfloat16), (False, torch.float16)):
        adapt_validator(evaluator, amp, {"dtype": dtype})
        evaluator.run()
    assert net.seen == [torch.float16, torch.bfloat16, torch.float32]


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("said", "gain", "chosen", "words"),
    [(None, 1.31, True, "1.3 times"), (None, 1.29, False, ""), (True, 1.1, True, ""), (False, 9.0, False, "")],
)
def test_a_cpu_computes_in_bf16_where_that_is_faster_or_somebody_says_it(
    monkeypatch, capsys, recwarn, said, gain, chosen, words
):
    monkeypatch.setattr(precision, "_measure_gain", lambda *args: gain)
    assert choose_autocast(said, Net(), CPU) is chosen and not recwarn
    out = capsys.readouterr().out
    assert words in out and bool(words) is ("bfloat16" in out)
    assert precision.name_precision(apply_precision(Net(), CPU, chosen, None)) == ("bfloat16" if chosen else "float32")


@pytest.mark.parametrize("training", [False, True])
def test_the_convolution_of_most_weights_is_timed_and_leaves_no_trace(monkeypatch, training):
    """On the clock of this test float32 takes 3 s and bfloat16 1 s, if that layer computes, else the same time."""
    convolutions = [nn.Conv2d(8, 48, 3), nn.Conv3d(8, 48, 3), nn.Conv1d(8, 48, 3)]
    networks = [(layer, nn.Sequential(nn.Conv2d(4, 8, 1), layer, nn.Linear(99, 99))) for layer in convolutions]
    linear = nn.Linear(99, 48)
    networks.append((linear, nn.Sequential(linear, nn.Linear(48, 47))))  # without convolutions
    for layer, network in networks:
        real, now = type(layer).forward, [0.0]

        def forward(self, image, real=real, now=now):
            result = real(self, image)
            right = self.weight.shape[0] == 48 and result.requires_grad is training
            now[0] += 3.0 if result.dtype == torch.float32 or not right else 1.0
            return result

        monkeypatch.setattr(type(layer), "forward", forward)
        monkeypatch.setattr(precision.time, "perf_counter", lambda now=now: now[0])
        before = torch.get_rng_state()
        with torch.inference_mode(not training):
            assert precision._measure_gain(network, torch.bfloat16, training) == pytest.approx(3.0)
        assert torch.equal(torch.get_rng_state(), before) and all(p.grad is None for p in network.parameters())
        monkeypatch.undo()
    for network in (nn.Linear(9, 99), nn.Conv2d(4, 8, 3)):
        assert precision._measure_gain(network, torch.bfloat16, training) == 1
