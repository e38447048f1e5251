"""The tensor graph: what it computes, and what it says when the JSON is wrong."""

import pytest
import torch
from torch import nn

from common.graph import TensorGraph


class Times(nn.Module):
    """A factor times the sum of the inputs; counts its calls."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))
        self.calls = 0

    def forward(self, *inputs):
        self.calls += 1
        return self.factor * sum(inputs)


STEPS = {
    "fake": ["down", "hr"],
    "back": ["up", "fake"],
    "both": ["up", "fake", "lr"],
    "verdict": ["judge", "fake"],
    "real": ["judge", "lr"],
}


def graph_of(steps=STEPS):
    return TensorGraph({"down": Times(0.5), "up": Times(3), "judge": Times(7)}, steps, batch_keys=["hr", "lr"])


def test_every_step_is_its_network_of_its_inputs():
    graph = graph_of()
    values = graph({"hr": torch.tensor(4.0), "lr": torch.tensor(1.0)}, list(STEPS))
    assert {name: value.item() for name, value in values.items()} == {
        "hr": 4, "lr": 1, "fake": 2, "back": 6, "both": 9, "verdict": 14, "real": 7,
    }  # fmt: skip
    values["back"].backward()
    assert graph.networks["down"].factor.grad.item() == 12 and graph.networks["judge"].factor.grad is None


@pytest.mark.parametrize(
    ("outputs", "calls"),
    [
        (["back"], {"down": 1, "up": 1, "judge": 0}),
        (["back", "both", "verdict"], {"down": 1, "up": 2, "judge": 1}),
        (["real", "hr"], {"down": 0, "up": 0, "judge": 1}),
        (["lr"], {"down": 0, "up": 0, "judge": 0}),
    ],
)
def test_only_what_is_needed_is_computed_and_only_once(outputs, calls):
    graph = graph_of()
    values = graph({"hr": torch.tensor(4.0), "lr": torch.tensor(1.0)}, outputs)
    assert set(outputs) <= set(values)
    assert {name: network.calls for name, network in graph.networks.items()} == calls


def test_a_batch_key_that_no_output_needs_may_be_missing():
    assert graph_of()({"lr": torch.tensor(1.0)}, ["real"])["real"].item() == 7


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        (["down"], {"fake", "back", "both", "verdict"}),
        (["up"], {"back", "both"}),
        (["judge"], {"verdict", "real"}),
        (["up", "judge"], {"back", "both", "verdict", "real"}),
        ([], set()),
    ],
)
def test_depending_on_follows_networks_through_later_steps(networks, expected):
    assert graph_of().depending_on(networks) == expected


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"sr": ["upp", "lr"]}, ["step 'sr'", "network 'upp'", "down, up, judge"]),
        ({"fake": ["down", "hr"], "sr": ["up", "fale"]}, ["step 'sr'", "input 'fale'", "hr, lr, fake"]),
        ({"sr": ["up", "fake"], "fake": ["down", "hr"]}, ["step 'sr'", "input 'fake'", "known there: hr, lr."]),
        ({"sr": ["up", "sr"]}, ["step 'sr'", "input 'sr'", "known there: hr, lr."]),
        ({"lr": ["down", "hr"]}, ["step 'lr'", "taken by the batch"]),
        ({"sr": "up"}, ["step 'sr'", "[network, input, ...]", "'up'"]),
        ({"sr": []}, ["step 'sr'", "[network, input, ...]"]),
        ({"sr": ["up", 3]}, ["step 'sr'", "[network, input, ...]"]),
    ],
)
def test_a_wrong_step_is_named_with_what_is_known(step, said):
    with pytest.raises(ValueError) as error:
        graph_of(step)
    for words in said:
        assert words in str(error.value)


def test_a_network_may_take_no_inputs():
    graph = graph_of({"own": ["up"], "both": ["down", "own", "hr"]})
    assert graph.depending_on(["up"]) == {"own", "both"}
    own = nn.Linear(1, 1).weight
    graph.networks["up"].forward = lambda: own
    values = graph({"hr": torch.tensor(4.0)}, ["both"])
    assert values["own"] is own and values["both"].item() == 0.5 * (own.item() + 4)


def test_a_network_that_is_no_module_is_named():
    with pytest.raises(ValueError, match=r"network 'up': .*Module.*'@up'"):
        TensorGraph({"up": "@up"}, {})


def test_check_outputs_names_the_user_and_lists_what_there_is():
    graph = graph_of()
    graph.check_outputs(["hr", "back"], "anyone")
    with pytest.raises(ValueError, match=r"player 'generator', term 'l1': .*'bakc'.*hr, lr, fake, back, both"):
        graph.check_outputs(["back", "bakc"], "player 'generator', term 'l1'")
