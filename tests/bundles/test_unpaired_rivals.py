"""Blind-SR, CUT, CycleGAN, DASR and Pseudo-SR: their sizes, and what their data are."""

import pytest
import torch

from common.degradations import GaussianProfile
from common.losses import PatchContrastiveLoss

from . import runs

PROFILE = {"_target_": "common.degradations.GaussianProfile", "factors": "@scale"}
IN_PLANE = {"scale": [2, 2, 1], "degradation": PROFILE}


@pytest.mark.parametrize(
    ("bundle", "count"),
    [(name, 4_764_561) for name in ("blind_sr", "pseudo_sr")]
    + [(name, 2_457_002) for name in ("cut", "cyclegan", "dasr")],
)
@pytest.mark.parametrize("config", ["train", "inference"])
def test_sizes(bundle, count, config):
    """Of what inference needs, the sizes that the paper of UDEAN gives (Liu et al. 2023, table II)."""
    network = runs.content(bundle, "network_def", config)
    assert sum(p.numel() for p in network.parameters()) == count
    if bundle in ("cut", "cyclegan"):  # its base is the interpolation, unless that is switched off
        bare = runs.content(bundle, "network_def", config, residual=False)
        assert network.decoder.base is not None and bare.decoder.base is None


def test_the_weights_of_dasr_s_error_learn_nothing():
    sizes = {"features": 8, "groups": 1, "blocks": 1, "reduction": 4}
    graph = runs.content("dasr", "graph", "train", device="cpu", **sizes)
    slab = torch.rand(1, 1, 16, 16, 3)
    batch = {"hr": torch.rand(1, 1, 32, 32, 6), "lr": slab, "lr_source": slab.flip(2)}
    values = graph(batch, ["weights", "lr_fake_verdict"])
    assert values["lr_fake_verdict"].requires_grad and not values["weights"].requires_grad


@pytest.mark.parametrize("settings", [{}, IN_PLANE])
def test_cut_compares_the_scan_and_its_result_at_the_same_positions(settings):
    """Before training, the result is the interpolated scan, so their features are the same."""
    sizes = {"features": 16, "groups": 1, "blocks": 1, "reduction": 4, "places": 64}
    graph = runs.content("cut", "graph", "train", device="cpu", **sizes, **settings)
    lr = torch.rand(2, 1, 32, 32, 3)
    across = graph.networks["up"](lr).shape[-1]
    values = graph({"hr": torch.rand(2, 1, 64, 64, across), "lr": lr}, ["fake_projections", "lr_projections"])
    queries, keys = values["fake_projections"], values["lr_projections"]
    torch.testing.assert_close(queries, keys)
    PatchContrastiveLoss()(queries, keys).backward()
    trained = {name for name, network in graph.networks.items() if any_gradient(network)}
    assert trained == {"up", "features", "heads"} and any_gradient(graph.networks["up"].decoder)


def any_gradient(network):
    return any(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@runs.of("blind_sr", "dasr", "pseudo_sr")
def test_known_pairs_lie_on_each_other(bundle, cohort):
    """The LR slab of a source is cut where its HR slab is, and is not as blurred as the scans are."""
    small = {"dataset_dir": str(cohort), "device": "cpu", "lr_patch": [16, 16, 3], "batch_size": 4}
    loader = runs.content(bundle, "train#dataloader", "train", **small)()
    batch = next(iter(loader))
    for hr, lr in zip(batch["hr"][:, 0], batch["lr_source"][:, 0], strict=True):
        found = []
        for volume in (item["hr"][0] for item in loader.source.volumes):
            windows = volume.unfold(0, 32, 2).unfold(1, 32, 2).unfold(2, 6, 2)
            places = (windows == hr).flatten(3).all(-1).nonzero()
            low = GaussianProfile((2, 2, 2), offset=(0, 0, 0))(volume[None])[0]
            found += [low[x : x + 16, y : y + 16, z : z + 3] for x, y, z in places.tolist()]
        assert len(found) == 1
        torch.testing.assert_close(found[0], lr)
