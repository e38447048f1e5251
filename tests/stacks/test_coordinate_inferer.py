"""An exam's contrasts by a network of coordinates: where it is asked, what it is shown, and that it learns."""

import itertools
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.engines import AlternatingTrainer, Player
from common.geometry.resampling import make_cubic_grid
from common.geometry.stack import Stack
from common.graph import TensorGraph
from common.inferers import CoordinateInferer
from common.networks import AverageOverSlice, CoordinateNetwork
from common.stacks import FittedStack

from .phantom import Phantom, grid

CONTRASTS = {"a": Phantom(3), "b": Phantom(3, contrast=-1.0)}
PLANES = {"a": [(2, (0, 0, 0))], "b": [(0, (4, -3, 5)), (1, (0, 0, 0))]}  # oblique to the result's grid


def acquire(name):
    """The stacks of a contrast, as the inferer gets them."""
    stacks = []
    for i, (across, turned) in enumerate(PLANES[name]):
        shape, affine = grid(across, turned)
        voxels = torch.from_numpy(CONTRASTS[name].stack(shape, affine)).float()
        meta = {"filename_or_obj": f"{name}{i}.nii.gz"}
        stacks.append(MetaTensor(voxels[None, None], affine=torch.from_numpy(affine), meta=meta))
    return stacks


def make_inferer(network, trainer, iterations=3, **options):
    graph = partial(
        TensorGraph,
        networks={"network": network, "average": AverageOverSlice()},
        steps={"contrasts": ["network", "coordinates"], "stacks": ["average", "contrasts"]},
        batch_keys=["coordinates", "values"],
    )
    losses = {"image/mse": [1.0, nn.MSELoss(), "stacks", "values"]}
    adam = partial(torch.optim.Adam, lr=0.002)
    players = {"network": partial(Player, optimizer=adam, losses=losses)}
    return CoordinateInferer(trainer, graph, players, iterations, 256, profile=1.0, spacing=2.0, **options)


def run(inferer, name="a"):
    a, b = acquire("a"), acquire("b")
    own, other = (a, b) if name == "a" else (b, a)
    return inferer(own[0], nn.Identity(), own[1:], contrasts=[other])


class Truth(nn.Module):
    """The head itself, in the place of a trained network; the grid's middle is the origin of the phantom."""

    def renew(self, contrasts):
        return self

    def forward(self, coordinates):
        # Axes of the result's grid are those of contrast a's stack.
        return torch.stack(
            [torch.from_numpy(each.at(coordinates.double().numpy())).float() for each in CONTRASTS.values()], dim=-1
        )


@pytest.mark.filterwarnings("ignore")
def test_coordinates_are_those_of_the_patient():
    """The head itself foretells all voxels of all stacks, and is what the grid gets."""
    seen = {}

    def train(train_data_loader, graph, **options):
        seen.update(loader=train_data_loader, graph=graph, calls=seen.get("calls", 0) + 1)
        return SimpleNamespace(
            logger=SimpleNamespace(setLevel=lambda level: None), add_event_handler=lambda *_: None, run=lambda: None
        )

    inferer = make_inferer(Truth(), train, points=16, agree=False)
    for name, phantom in CONTRASTS.items():
        result = run(inferer, name)
        true = phantom.on(result.shape[2:], np.asarray(result.affine)[0])
        assert np.abs(np.asarray(result)[0, 0] - true).max() < 0.01
    assert seen["calls"] == 1  # for both contrasts
    for batch in itertools.islice(seen["loader"], 3):
        stacks = seen["graph"](batch, ["stacks"])["stacks"]
        scale = batch["values"].flatten() @ stacks.flatten() / stacks.square().sum()  # b has a brightness of its own
        assert abs(scale - 1) < 0.02 and (batch["values"] - stacks).abs().quantile(0.95) < 0.02


def test_it_learns_and_depends_on_the_seed_alone():
    network = CoordinateNetwork(features=32, layers=2, frequencies=32)
    trainer = partial(AlternatingTrainer, device=torch.device("cpu"))
    shape, affine = make_cubic_grid((64, 64, 16), grid(2)[1], 2.0)
    starts = {name: (torch.zeros(shape), affine, [fit(name)], [1e-4]) for name in CONTRASTS}

    def make(iterations=150, agree=False, seed=0):
        before = torch.get_rng_state()
        with torch.no_grad():
            inferer = make_inferer(network, trainer, iterations, points=3, agree=agree, seed=seed)
            results = inferer.reconstruct_jointly({name: start[0] for name, start in starts.items()}, starts, "")
        assert torch.equal(torch.get_rng_state(), before)
        return torch.stack([*results.values()]).numpy()

    learned, again, other = make(), make(), make(seed=1)
    np.testing.assert_array_equal(learned, again)
    assert np.abs(learned - other).max() > 1e-3
    true = np.stack([each.on(shape, affine) for each in CONTRASTS.values()])
    errors = [np.mean((each - true) ** 2) for each in (make(1), learned, make(agree=True))]
    assert errors[1] < 0.3 * errors[0] and errors[2] < 0.5 * errors[1], errors


def fit(name):
    """The first stack of a contrast, of which all counts and nothing is to be corrected."""
    image = acquire(name)[0]
    voxels = image.as_tensor()[0, 0]
    stack = Stack(voxels, np.asarray(image.affine), 1.0, name, torch.ones(voxels.shape, dtype=torch.bool))
    ones = torch.ones(voxels.shape[2])
    return FittedStack(stack, None, None, ones, ones, ones)
