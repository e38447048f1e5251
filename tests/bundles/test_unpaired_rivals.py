"""Blind-SR, CycleGAN, DASR and Pseudo-SR: their sizes, and which networks learn from which term."""

import pytest
import torch

from common.degradations import KSpaceTruncation

from . import runs

SMALL = {"features": 8, "groups": 1, "blocks": 1, "reduction": 4, "lr_patch": [16, 16, 3]}
# Of each bundle: what a term looks at, and those generators that have a gradient of it.
LEARNS = {
    "blind_sr": {
        "hr_fake": {"super_resolver"},
        "target_fake_verdict": {"transfer_back"},
        "source_fake_verdict": {"transfer"},
        "target_cycle": {"transfer", "transfer_back"},
        "source_cycle": {"transfer", "transfer_back"},
        "target_self": {"transfer_back"},
        "source_self": {"transfer"},
    },
    "cyclegan": {
        "lr_cycle": {"up", "down"},
        "hr_cycle": {"up", "down"},
        "hr_fake_verdict": {"up"},
        "lr_fake_verdict": {"down"},
        "hr_self": {"up"},
        "lr_self": {"down"},
    },
    "pseudo_sr": {
        "lr_fake_verdict": {"degrader"},
        "clean_fake_verdict": {"corrector"},
        "hr_pseudo_verdict": {"corrector", "degrader"},
        "clean_pseudo": {"corrector", "degrader"},
        "clean_self": {"corrector"},
        "clean_ensemble": {"corrector"},
    },
}


def touched(graph, batch, output):
    """Networks that have a gradient of the sum of an output."""
    graph.zero_grad(set_to_none=True)
    graph(batch, [output])[output].sum().backward()
    return {name.split(".")[1] for name, p in graph.named_parameters() if p.grad is not None}


@pytest.fixture
def batch():
    """Slabs of both kinds."""
    slab = torch.rand(1, 1, 16, 16, 3)
    return {"hr": torch.rand(1, 1, 32, 32, 6), "lr": slab, "lr_source": slab.flip(2)}


@pytest.mark.parametrize(
    ("bundle", "count"),
    [("blind_sr", 4_764_561), ("cyclegan", 2_457_002), ("dasr", 2_457_002), ("pseudo_sr", 4_764_561)],
)
@pytest.mark.parametrize("config", ["train", "inference"])
def test_sizes(bundle, count, config):
    """Of what inference needs, the sizes that the paper of UDEAN gives (Liu et al. 2023, table II)."""
    network = runs.content(bundle, "network_def", config)
    assert sum(p.numel() for p in network.parameters()) == count
    if bundle == "cyclegan":  # its base is the interpolation, unless that is switched off
        bare = runs.content(bundle, "network_def", config, residual=False)
        assert network.decoder.base is not None and bare.decoder.base is None


@pytest.mark.parametrize("bundle", LEARNS)
def test_what_the_generators_learn_from(bundle, batch):
    """Each term reaches its own generators, and no others."""
    graph = runs.content(bundle, "graph", "train", device="cpu", **SMALL)
    generators = set().union(*LEARNS[bundle].values())
    for output, own in LEARNS[bundle].items():
        assert touched(graph, batch, output) & generators == own, output


def test_style_transfer_has_no_other_term():
    """Of Blind-SR, all that trains generators is in the table above."""
    players = runs.content("blind_sr", None, "train")["players"]
    terms = {row[2] for name in ("style", "sr") for row in players[name]["losses"].values()}
    assert terms == set(LEARNS["blind_sr"])


def test_dasr_learns_from_each_of_its_terms(batch):
    """Each reaches the networks of its player; the weights of the error reach none."""
    graph = runs.content("dasr", "graph", "train", device="cpu", **SMALL)
    players = runs.content("dasr", None, "train")["players"]
    for player in ("dsn", "srn"):
        for term, row in players[player]["losses"].items():
            assert set(players[player]["networks"]) <= touched(graph, batch, row[2]), term
    assert not graph(batch, ["weights"])["weights"].requires_grad
    assert "weights" in players["srn"]["losses"]["image/weighted_l1"]


@runs.of("pseudo_sr")
def test_known_pairs_lie_on_each_other(cohort):
    """The LR slab of a source is cut where its HR slab is."""
    small = {"dataset_dir": str(cohort), "device": "cpu", "lr_patch": [16, 16, 3], "batch_size": 4}
    loader = runs.content("pseudo_sr", "train#dataloader", "train", **small)()
    batch = next(iter(loader))
    for hr, lr in zip(batch["hr"][:, 0], batch["lr_source"][:, 0], strict=True):
        found = []
        for volume in (item["hr"][0] for item in loader.source.items):
            windows = volume.unfold(0, 32, 2).unfold(1, 32, 2).unfold(2, 6, 2)
            places = (windows == hr).flatten(3).all(-1).nonzero()
            low = KSpaceTruncation((2, 2, 2))(volume[None])[0]
            found += [low[x : x + 16, y : y + 16, z : z + 3] for x, y, z in places.tolist()]
        assert len(found) == 1
        torch.testing.assert_close(found[0], lr)
