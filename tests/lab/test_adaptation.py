import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.degradations import GaussianProfile
from common.lab.queue import adaptation
from common.lab.queue.adaptation import Part, measure_widths, train_row
from common.lab.queue.exams import read_exams
from common.networks import RDN

from ..bundles.runs import degrade, phantom, save

PLAN = json.loads(Path(adaptation.__file__).with_suffix(".json").read_text())


def test_who_is_held_out_is_not_learned_from():
    exams = read_exams()
    learned, held_out = ({exams[name]["person"] for name in PLAN[group]} for group in ("learn", "held_out"))
    assert len(held_out) == 3 and not learned & held_out
    assert all({*stacks} <= {*exams[name]["stacks"]} for name, stacks in PLAN["learn"].items())


def test_both_parts_of_a_network_are_the_network():
    network, lr = RDN(GaussianProfile((1, 1, 4)), features=4, growth=4, blocks=1), torch.randn(1, 1, 8, 6)
    encoder = Part([network.shallow, network.head, network.blocks, network.fusion], network.encode)
    decoder = Part([network.upsampler, network.tail], network.decode)
    assert torch.equal(decoder(encoder(lr), lr), network(lr))
    parameters = {id(each) for part in (encoder, decoder) for each in part.parameters()}
    assert parameters == {id(each) for each in network.parameters()}


@pytest.fixture
def stack(tmp_path):
    """A stack whose slices are 1.2 times as thick as they are apart; its protocol does not say so."""
    lr, affine = degrade(phantom(3, (64, 64, 100)), np.eye(4), GaussianProfile((1, 1, 5), fwhm=1.2))
    return save(tmp_path / "exams" / "one" / "a.nii.gz", lr, affine)


def test_a_width_is_of_the_protocol_or_measured(stack):
    assert measure_widths([stack], 5)[0] == pytest.approx(1.2, abs=0.15)
    stack.with_name("a.json").write_text('{"SliceThickness": 4}')
    assert measure_widths([stack], 5) == [0.8]


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAN["rows"])
def test_each_row_changes_the_shipped_weights_and_no_others(name, stack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = copy.deepcopy(PLAN)
    row = plan["rows"][name]
    row |= {key: 1 for key in row if key.endswith("epoch_length")}
    plan |= {"learn": {"one": ["a"]}, "all": plan["all"] | {"max_epochs": 1, "batch_size": 1, "lr_patch": [32, 12]}}
    weights = torch.load(train_row(plan, name, Path("exams"), Path("out")))
    shipped = torch.load(Path(adaptation.__file__).parents[3] / "bundles/ct_guided/models/model_5.pt")
    assert weights.keys() == shipped.keys()
    assert 0 < max((weights[key] - shipped[key]).abs().max() for key in shipped) < 0.01
