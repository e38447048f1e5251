"""Pseudo-SR: its size, which terms train what, and that known pairs stay in place."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser

from common.degradations import KSpaceTruncation

from . import runs


def content(key, *names, **override):
    """What an entry of the merged configs is built to."""
    parser = ConfigParser()
    parser.read_config(runs.configs("pseudo_sr", *names))
    parser.update(override)
    return parser.get_parsed_content(key)


def test_networks():
    """The size that the paper of UDEAN gives, of what inference needs (Liu et al. 2023, table II)."""
    for name in ("train", "inference"):
        assert sum(p.numel() for p in content("network_def", name).parameters()) == 4_764_561


def test_what_each_player_learns_from():
    """The corrector has a gradient of each of its terms, the way back of the cycle and of what looks like target."""
    small = {"features": 8, "groups": 1, "blocks": 1, "reduction": 4, "widths": [4, 8], "lr_patch": [16, 16, 3]}
    parser = ConfigParser()
    parser.read_config(runs.configs("pseudo_sr", "train"))
    parser.update({"device": "cpu", **small})
    graph = parser.get_parsed_content("graph")
    slab = torch.rand(1, 1, 16, 16, 3)
    batch = {"hr": torch.rand(1, 1, 32, 32, 6), "lr": slab, "lr_source": slab.flip(2)}
    expected = {
        "lr_fake_verdict": {"degrader"},
        "clean_fake_verdict": {"corrector"},
        "hr_pseudo_verdict": {"corrector", "degrader"},
        "clean_pseudo": {"corrector", "degrader"},
        "clean_self": {"corrector"},
        "clean_ensemble": {"corrector"},
    }
    for output, own in expected.items():
        graph.zero_grad(set_to_none=True)
        graph(batch, [output])[output].sum().backward()
        touched = {
            name
            for name in ("corrector", "degrader")
            if any(p.grad is not None for p in graph.networks[name].parameters())
        }
        assert touched == own, output


@pytest.mark.parametrize("bundle", ["pseudo_sr"], indirect=True, scope="session")
def test_known_pairs_lie_on_each_other(cohort):
    """The LR slab of a source is cut where its HR slab is."""
    loader = content(
        "train#dataloader", "train", dataset_dir=str(cohort), device="cpu", lr_patch=[16, 16, 3], batch_size=4
    )
    volumes = [item["hr"][0] for item in loader.source.items]
    batch = next(iter(loader))
    for hr, lr in zip(batch["hr"][:, 0], batch["lr_source"][:, 0], strict=True):
        found = []
        for volume in volumes:
            windows = volume.unfold(0, 32, 2).unfold(1, 32, 2).unfold(2, 6, 2)
            places = (windows == hr).flatten(3).all(-1).nonzero()
            low = KSpaceTruncation((2, 2, 2))(volume[None])[0]
            found += [low[x : x + 16, y : y + 16, z : z + 3] for x, y, z in places.tolist()]
        assert len(found) == 1
        torch.testing.assert_close(found[0], lr)
