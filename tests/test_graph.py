from functools import partial

import torch
from torch import nn

from common.graph import TensorGraph

from .refused import refused


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor, self.calls = nn.Parameter(torch.tensor(float(factor))), 0

    def forward(self, *inputs):
        self.calls += 1
        return self.factor * sum(inputs)


STEPS = {"fake": ["down", "hr"], "back": ["up", "fake"], "both": ["up", "fake", "lr"]}
STEPS |= {"verdict": ["judge", "fake"], "real": ["judge", "lr"]}
BATCH = {"hr": torch.tensor(4.0), "lr": torch.tensor(1.0)}


def graph_of(steps=STEPS):
    return TensorGraph({"down": Times(0.5), "up": Times(3), "judge": Times(7)}, steps, batch_keys=["hr", "lr"])


def test_every_step_is_its_network_of_its_inputs():
    graph = graph_of()
    values = graph(BATCH, list(STEPS))
    expected = {"hr": 4, "lr": 1, "fake": 2, "back": 6, "both": 9, "verdict": 14, "real": 7}
    assert {name: value.item() for name, value in values.items()} == expected
    values["back"].backward()
    assert graph.networks["down"].factor.grad.item() == 12 and graph.networks["judge"].factor.grad is None


def test_only_what_is_needed_is_computed_and_only_once():
    """A batch key that no output needs may be missing."""
    for outputs, *calls in (("back", 1, 1, 0), ("back both verdict", 1, 2, 1), ("real hr", 0, 0, 1), ("lr", 0, 0, 0)):
        graph = graph_of()
        assert set(outputs.split()) <= set(graph(BATCH, outputs.split()))
        assert [graph.networks[name].calls for name in ("down", "up", "judge")] == calls
    assert graph({"lr": torch.tensor(1.0)}, ["real"])["real"].item() == 7


def test_depending_on_follows_networks_through_later_steps():
    graph = graph_of()
    assert graph.find_dependent_steps(["down"]) == {"fake", "back", "both", "verdict"}
    assert graph.find_dependent_steps(["up", "judge"]) == {"back", "both", "verdict", "real"}
    assert graph.find_dependent_steps([]) == set()


def test_a_network_may_take_no_inputs():
    graph = graph_of({"own": ["up"], "both": ["down", "own", "hr"]})
    assert graph.find_dependent_steps(["up"]) == {"own", "both"}
    own = nn.Linear(1, 1).weight
    graph.networks["up"].forward = lambda: own
    values = graph({"hr": torch.tensor(4.0)}, ["both"])
    assert values["own"] is own and values["both"].item() == 0.5 * (own.item() + 4)


def test_a_wrong_step_network_or_output_is_refused():
    for steps, *words in (
        ({"sr": ["upp", "lr"]}, "step 'sr'", "network 'upp'", "down, up, judge"),
        ({"fake": ["down", "hr"], "sr": ["up", "fale"]}, "'sr'", "input 'fale'", "hr, lr, fake"),
        ({"sr": ["up", "fake"], "fake": ["down", "hr"]}, "'sr'", "input 'fake'", "there: hr, lr."),
        ({"sr": ["up", "sr"]}, "step 'sr'", "input 'sr'", "known there: hr, lr."),
        ({"lr": ["down", "hr"]}, "step 'lr'", "taken by the batch"),
        ({"sr": "up"}, "step 'sr'", "[network, input, ...]", "'up'"),
        ({"sr": []}, "step 'sr'", "[network, input, ...]"),
        ({"sr": ["up", 3]}, "step 'sr'", "[network, input, ...]"),
    ):
        refused(partial(graph_of, steps), ValueError, *words)
    refused(lambda: TensorGraph({"up": "@up"}, {}), ValueError, "network 'up'", "Module", "'@up'")
    words = ["term 'l1'", "'bakc'", "hr, lr, fake, back"]
    refused(lambda: graph_of().check_outputs(["hr", "bakc"], "term 'l1'"), ValueError, *words)
    graph_of().check_outputs(["hr", "back"], "anyone")
