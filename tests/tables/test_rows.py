"""The rows of the tables of all methods: on equal terms, raw and made to agree with the scan."""

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.tables.rows import apply_size_overlay, read_table_rows

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


def test_slabs_lie_across_one_direction_unless_a_row_says_so():
    """As those of the rivals do; by default the window form learns from slabs across all three."""
    for row in read_table_rows("bundles/udean", "isotropic"):
        if row["bundle"].endswith("udean_window") and not row["overlays"]:
            assert (row["override"].get("any_axis") is False) != ("three directions" in row["name"])
