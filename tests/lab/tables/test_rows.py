"""The rows of the tables of all methods: on equal terms, raw and made to agree with the scan."""

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from common.lab.tables.rows import apply_size_overlay, read_table_rows
from common.lab.tables.runs import list_runs
from common.networks import VGGDiscriminator

GRAND = [("udean", "isotropic"), ("guided_rdn", "in plane")]
SIZES = ("slices", "scale", "features", "groups", "blocks", "reduction", "residual")
AGREEMENT = {
    "_target_": "common.inferers.ConsistentInferer",
    "inferer": "@train#inferer",
    "degradation": "@degradation",
}


@pytest.mark.parametrize(("bundle", "table"), GRAND)
def test_every_row_is_there_raw_and_with_agreement(bundle, table):
    """Both have the same weights and the same start; what is trained says what it knew."""
    rows = {row["name"]: row for row in read_table_rows(f"bundles/{bundle}", table)}
    ending = ", with data consistency"
    raw = [name for name in rows if not name.endswith(ending)]
    assert {name + ending for name in raw} | {"cubic" + ending} == rows.keys() - set(raw)
    for name in raw:
        row, agreeing = rows[name], rows[name + ending]
        override = {**row["override"], "evaluate#evaluator#inferer": AGREEMENT}
        told = {"knows": agreeing["knows"]}
        assert agreeing == {**row, "name": name + ending, "override": override, **told}
        assert "degradation" in told["knows"]
        assert row["knows"] or row["weights"] != name or name == "zero filling"


@pytest.mark.parametrize(("bundle", "table"), [*GRAND, ("udean", "III"), ("udean", "III, misaligned")])
@pytest.mark.parametrize("size", [None, "small"])
def test_slab_networks_are_of_one_size(bundle, table, size):
    """And none agrees with the scan or is the mean of several directions, before a row says so."""
    found = {}
    for row in read_table_rows(f"bundles/{bundle}", table):
        if row["start"] and row["weights"] == row["name"]:
            row = row if size is None else apply_size_overlay(row, size)
            names = ["train", *row["overlays"]]
            config = ConfigParser()
            config.read_config([str(Path(row["bundle"]) / "configs" / f"{name}.json") for name in names])
            config.update(row["override"])
            values = [config.get_parsed_content(key) for key in SIZES]
            found[row["name"]] = json.dumps(
                [*values, config.get("axes") or [2], config.get("data_consistency_iterations") or 0]
            )
    assert len(found) > 5 and len(set(found.values())) == 1, found


@pytest.mark.parametrize("table", ["III", "III, misaligned"])
@pytest.mark.parametrize("size", [None, "small"])
def test_table_iii_trains_all_methods_alike(table, size):
    """On the same patches, with UDEAN's optimizer, rates and discriminators, as its paper asks."""
    found, others = {}, set()
    for row in (row for row in read_table_rows("bundles/udean", table) if row["start"]):
        row = row if size is None else apply_size_overlay(row, size)
        config = ConfigParser()
        config.read_config([str(Path(row["bundle"]) / "configs" / f"{n}.json") for n in ("train", *row["overlays"])])
        config.update({**row["override"], "max_epochs": 2, "epoch_length": 3, "learning_rate": 0.1, "device": "cpu"})
        alike = [config.get_parsed_content(key) for key in ("lr_patch", "batch_size", "widths", "misaligned")]
        for name in config["players"]:
            player = f"players#{name}"
            optimizer = config.get_parsed_content(f"{player}#optimizer")([torch.nn.Parameter(torch.ones(1))])
            scheduler, rates = config.get_parsed_content(f"{player}#iteration_scheduler")(optimizer), []
            for _ in range(6):
                optimizer.step()
                scheduler.step()
                rates += scheduler.get_last_lr()
            found[row["name"], name] = repr([alike, type(optimizer), optimizer.defaults, rates])
        for name, network in config.get_parsed_content("graph").networks.items():
            if name.endswith("discriminator"):
                if isinstance(network, VGGDiscriminator):
                    assert [c.out_channels for c in network.body if isinstance(c, torch.nn.Conv2d)][::2] == alike[2]
                else:
                    others.add((row["name"], name))
    assert len({row for row, _ in found}) == 6 and len(set(found.values())) == 1, found
    assert others == {("DASR", "lr_discriminator")}  # whose verdicts on small patches weigh pixels


@pytest.mark.parametrize("table", ["adaptation", "I", "III"])
def test_a_discriminator_that_generators_heed_is_trained_and_no_other(table):
    for row in read_table_rows("bundles/udean", table):
        if row["bundle"] == "bundles/udean" and row["weights"] and "pretrain" not in row["overlays"]:
            config = ConfigParser()
            config.read_config([f"bundles/udean/configs/{name}.json" for name in ("train", *row["overlays"])])
            config.update(row["override"])
            judges = []
            for player in ("generator", "discriminator"):
                terms = {n: t for n, t in config[f"players#{player}#losses"].items() if t is not None}
                weights = {n: config.get_parsed_content(f"players#{player}#losses#{n}#0") for n in terms}
                verdicts = [word for n, term in terms.items() if weights[n] for word in term if "verdict" in str(word)]
                judges.append({config[f"graph#steps#{verdict}"][0] for verdict in verdicts})
            assert judges[0] == judges[1], row["name"]


def test_slabs_lie_across_one_direction_unless_a_row_says_so():
    """As those of the rivals do; by default the window form learns from slabs across all three."""
    for row in read_table_rows("bundles/udean", "isotropic"):
        if row["bundle"].endswith("udean_window") and not row["overlays"]:
            assert (row["override"].get("any_axis") is False) != ("three directions" in row["name"])


def test_a_published_gain_is_of_the_table_s_own_scale(tmp_path):
    rows = [row for row in read_table_rows("bundles/udean", "III") if row["name"] == "UDEAN"]
    for override, published in ({}, "+1.93/+0.026"), ({"scale": "[2,2,1]"}, None):
        (run,) = list_runs(rows, tmp_path, override)
        assert run.published == published
