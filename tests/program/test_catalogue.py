"""Which of the shipped weights are chosen for a scan, and from where on none are."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from common.program import bundles, catalogue
from common.program.bundles import BUNDLES
from common.program.catalogue import Candidate, list_candidates, read_card
from common.program.exams.ranking import rank_choices, rank_self_trained
from common.weights.saving import SavedWeights

from ..bundles import runs
from ..refused import refused

THERE = [candidate for candidate in list_candidates(None, {}) if candidate.is_available and any(candidate.ranges)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=["as it is", "stored in another order"])
def test_what_is_chosen(order):
    for spacing, guided, name, result in (
        ((1.5, 1.5, 1.5), False, "udean_window 2x2x2", (0.75, 0.75, 0.75)),
        ((2, 2, 1), False, "udean_window 2x2x1", (1, 1, 1)),
        ((1, 2, 2), False, "udean_window 2x2x1", (1, 1, 1)),  # slabs along the axis that has the small spacing
        ((1.5, 1.5, 5), False, "ct_guided 1x1x4", (1.5, 1.5, 1.25)),
        ((0.9, 0.9, 2), False, "ct_guided 1x1x2", (0.9, 0.9, 1)),
        ((1, 1, 3), False, "ct_guided 1x1x3", (1, 1, 1)),
        ((1, 1, 5), False, "ct_guided 1x1x5", (1, 1, 1)),
        ((1, 1.6, 4), False, "ct_guided 1x1x3", (1, 1.6, 4 / 3)),  # by 4 slices would be finer than the plane
        ((0.45, 0.45, 6), False, "ct_guided 1x1x6", (0.45, 0.45, 1)),
        ((1.5, 1.5, 11), False, "guided_rdn 2x2x1", (0.75, 0.75, 11)),
        ((1.5, 1.5, 5), True, "guided_rdn 2x2x1, guided", (0.75, 0.75, 5)),
        ((1, 1, 1), False, "udean_window 2x2x2", (0.5, 0.5, 0.5)),
        ((3.4, 1.8, 1.8), False, "udean_window 2x2x2", (1.7, 0.9, 0.9)),
        ((1.8, 1.8, 6), False, "udean_window 2x2x1", (0.9, 0.9, 6)),
        # None is known to sharpen these: what makes voxels most nearly cubes.
        ((0.8, 0.8, 0.8), False, "udean_window 2x2x2", (0.4, 0.4, 0.4)),
    ):
        best = rank_choices(np.diag([*spacing, 1.0])[:, [*order, 3]], THERE, guided)[0]
        assert best.doubt is None and best.candidate.name == name
        np.testing.assert_allclose(best.spacing, [np.array(size)[list(order)] for size in (spacing, result)])
        assert (best.excess == 1) == (spacing != (0.8, 0.8, 0.8))


@pytest.mark.parametrize(
    "spacing, why",
    [(0.4, "2.2 times finer than the finest"), (9.0, "2.6 times coarser than"), ((0.1, 0.1, 0.5), "6.0 times finer")],
)
def test_what_no_weights_are_for(spacing, why):
    affine = np.diag([*np.broadcast_to(spacing, 3), 1.0])
    others = [choice.candidate.name for choice in rank_self_trained(affine, False)]
    assert others == (["eclare 1x1x5", "smore 1x1x5", "zssr 1x1x5"] if np.ndim(spacing) else ["zssr 2x2x2"])
    choices = rank_choices(affine, THERE, False)
    assert choices and all(choice.doubt for choice in choices) and why in choices[0].doubt


def candidate(scale, in_plane=(1, 2), across=(1, 2), **more):
    """Weights that were trained on these voxel sizes in mm, or a method without weights."""
    ranges = (in_plane, in_plane, across)
    return Candidate(Path("method"), None, {"slice_axis": "SI"}, scale, "SI", ranges, False, **more)


@pytest.mark.parametrize(
    "inside, outside, word",
    [
        ((0.51, 0.51, 0.51), (0.49, 0.49, 0.49), "finer"),  # half of the finest
        ((0.9, 0.9, 0.26), (0.9, 0.9, 0.24), "finer"),  # a quarter along an axis, if another is nearer
        ((4.9, 4.9, 4.9), (5.1, 5.1, 5.1), "coarser"),  # 2.5 times the coarsest
        ((1.5, 1.5, 4.9), (1.5, 1.5, 5.1), "coarser"),
    ],
)
def test_how_far_outside_of_their_range_weights_are_used(inside, outside, word):
    known = [candidate((2, 2, 2))]
    (used,), (not_used,) = (rank_choices(np.diag([*spacing, 1.0]), known, False) for spacing in (inside, outside))
    assert used.doubt is None and word in not_used.doubt


def test_voxels_half_a_percent_outside_of_a_range_are_inside():
    cubic, wide = candidate((2, 2, 2)), candidate((2, 2, 1), (1, 3), (1, 3))
    for size, first in ((2.009, cubic), (2.012, wide)):
        assert rank_choices(np.diag([size] * 3 + [1.0]), [wide, cubic], False)[0].candidate is first


def test_which_axes_a_method_without_weights_refines():
    """Only the slices' if they are 1.4 times as thick as pixels, only the pixels' if these are as much wider."""
    known = [candidate((1, 1, 1), None, None, free="any")]
    for thickness, scale in ((1.38, (2, 2, 2)), (1.42, (1, 1, 2)), (1 / 1.38, (2, 2, 2)), (1 / 1.42, (2, 2, 1))):
        (found,) = rank_choices(np.diag([1, 1, thickness, 1]), known, False)
        assert found.candidate.scale == scale, thickness


def test_slices_lie_where_the_spacing_shows_it():
    """Not where those of the training did, though voxels would be more nearly cubes; but where somebody says so."""
    set_keys = {"scale": [2, 2, 1], "checkpoint": str(BUNDLES / "udean_window" / "models" / "model_2x2x1.pt")}
    for said, sagittal in ({}, (3.4, 0.9, 0.9)), ({"slice_axis": "SI"}, (1.7, 0.9, 1.8)):
        known = list_candidates("udean_window", set_keys | said)
        (best,) = rank_choices(np.diag([3.4, 1.8, 1.8, 1.0]), known, False)
        np.testing.assert_allclose(best.spacing[1], sagittal)
        even = np.diag([1.5, 1.5, 1.3, 1.0])  # the spacing does not tell
        if said:
            assert rank_choices(even, known, False)[0].slice_axis == "SI"
        else:
            choosing = partial(rank_choices, even, known, False)
            refused(choosing, ValueError, "--slice_axis SI")


def test_the_slice_axis_that_a_file_names_or_that_is_assumed():
    """What nothing shows is assumed only for thick slices, and only where no weights fit without it."""
    slices = "ct_guided 1x1x2"
    for spacing, across, name, axis in (
        ((0.7, 1.4, 2.8), 2, slices, "auto"),
        ((0.7, 1.4, 2.8), None, slices, "SI"),
        ((0.6, 2.4, 5), 2, "ct_guided 1x1x3", "auto"),  # not 1x1x4, finer than pixels
        ((2.8, 1.4, 0.7), None, slices, "LR"),
        ((0.7, 1.4, 2.8), 1, "udean_window 2x2x2", "SI"),  # slices are as thick as pixels there
        ((0.6, 1.6, 3.2), None, slices, "SI"),  # not slices of 0.6 mm
        ((0.95, 1.2, 1.9), None, "udean_window 2x2x2", "SI"),  # which fits whatever the axis is
        ((0.667, 2.667, 2.8), 2, "udean_window 2x2x2", "SI"),  # pixels as long as slices are thick
        ((1, 3.81, 3.81), 2, "udean_window 2x2x2", "SI"),  # no network in plane across the slices
        ((1.4, 0.7, 1.4), 2, "udean_window 2x2x2", "SI"),
    ):
        ranked = rank_choices(np.diag([*spacing, 1.0]), THERE, False, across=across)
        best = next(choice for choice in ranked if choice.doubt is None)
        assert (best.candidate.name, best.slice_axis) == (name, axis), spacing
        assert best.is_assumed == (across is None and name == slices)


def test_a_name_is_that_of_a_shipped_bundle_whatever_folders_are_here(tmp_path, monkeypatch):
    (tmp_path / "stacks" / "configs").mkdir(parents=True)
    (tmp_path / "stacks" / bundles.CONFIG).touch()
    monkeypatch.chdir(tmp_path)
    assert bundles.list_bundles("stacks") == [BUNDLES / "stacks"]
    assert bundles.list_bundles("./stacks") == [tmp_path / "stacks"]


def test_keys_are_for_the_bundles_that_know_them():
    """They change nothing of the others, nor what is chosen; one that none knows is a mistake."""
    set_keys = {"adapt_iterations": 0, "data_consistency_iterations": 0}
    known = [candidate for candidate in list_candidates(None, set_keys) if candidate.is_available]
    assert [candidate.name for candidate in known] == [candidate.name for candidate in THERE]
    assert {key for candidate in known if candidate.bundle.name == "udean_window" for key in candidate.overrides} == {
        "checkpoint", "data_consistency_iterations",
    }  # fmt: skip
    refused(lambda: list_candidates(None, {"dryrun": True}, ["dry_run"]), ValueError, "--dryrun", "--dry_run or --run?")
    # Nothing in a scan tells that its blur is one that nobody knows.
    for asked in (("downsampling_gan", {}), (None, {"denoise_input": True})):
        assert {candidate.bundle.name for candidate in list_candidates(*asked)} == {"downsampling_gan"}
    assert "downsampling_gan" not in {candidate.bundle.name for candidate in list_candidates(None, {})}
    asked = partial(list_candidates, "udean_window", {"adapt_iterations": 0})
    refused(asked, ValueError, "--adapt_iterations", "udean_window")
    refused(lambda: list_candidates("uden", {}), FileNotFoundError, "--bundle 'uden': ", "ct_guided, ", "udean, ")


def test_metadata_offers_what_inference_does():
    for file in BUNDLES.glob("*/configs/inference.json"):
        config, card = json.loads(file.read_text()), read_card(file.parents[1])
        said = {key: config[key] for key in ("scale", "slice_axis", "guided", "fewest_stacks") if key in config}
        said |= {"weights": config.get("checkpoint") is not None}
        assert {key: value for key, value in card.items() if key not in ("on_request", "learns_from_scan")} == said
        assert card.get("learns_from_scan", False) == ("iterations" in config)


def test_methods_that_learn_from_the_scan_need_no_weights():
    """Their scale suits the scan, unless it is given; they are taken where they are named."""
    assert not {"zssr", "smore"} & {candidate.bundle.name for candidate in list_candidates(None, {})}
    for bundle, spacing, scale in (
        ("zssr", (1, 1, 1), (2, 2, 2)),
        ("zssr", (1, 4, 1), (1, 1, 4)),
        ("zssr", (2, 2, 1), (2, 2, 1)),
        ("smore", (4.5, 1, 1), (1, 1, 4.5)),
    ):
        (candidate,) = list_candidates(bundle, {})
        (best,) = rank_choices(np.diag([*spacing, 1.0]), [candidate], False)
        assert (
            candidate.is_available
            and best.candidate.scale == scale
            and best.candidate.overrides == {"scale": list(scale)}
        )
        assert rank_choices(np.diag([1, 1, 4.0, 1]), [candidate.apply_scale([1, 1, 2])], False)[0].candidate.scale == (
            1,
            1,
            2,
        )
    for spacing, why in ((1, 1, 1), "which axis"), ((2, 2, 1), "no thicker"):
        call = partial(rank_choices, np.diag([*spacing, 1.0]), list_candidates("smore", {}), False)
        refused(call, ValueError, why)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Folder of the weights of the one bundle that there is: two in its models, one of them gone."""
    root = tmp_path / "bundles" / "srcnn"
    shutil.copytree(BUNDLES / "srcnn" / "configs", root / "configs")
    monkeypatch.setattr(bundles, "BUNDLES", tmp_path / "bundles")
    for name, scale in (("model", [2, 2, 1]), ("model_3", [3, 3, 1])):
        save(root / "models" / f"{name}.pt", scale, slice_axis="AP")
    (root / "models" / "model_3.pt").unlink()
    return root / "models"


def save(path, scale, features=(4, 4), **further):
    network = runs.content("srcnn", "network_def", "inference", features=features, scale=scale)
    sizes = {"scale": scale, "features": features, "training_range": {"in_plane_spacing": [1, 2]}, **further}
    SavedWeights(network, [path], sizes, bundle_root=path.parents[1]).save()


def found(*asked):
    return {
        candidate.name: (candidate.overlay and candidate.overlay.name, candidate.is_available)
        for candidate in list_candidates(*asked)
    }


def test_overlays_say_which_weights_there_are(models):
    """Those beside inference.json that nothing describes are there by themselves; a bundle may be moved as a whole."""
    assert found(None, {}) == {"srcnn 2x2x1": ("model.json", True), "srcnn 3x3x1": ("model_3.json", False)}
    moved = shutil.move(models.parent, models.parents[2] / "elsewhere" / "srcnn") / "models"
    (candidate, _) = list_candidates(str(moved.parent), {"device": "cpu"})
    assert candidate.slice_axis == "AP" and candidate.ranges == ((1, 2), (1, 2), None)
    assert candidate.overrides == {"device": "cpu", "checkpoint": moved / "model.pt"}
    workflow = candidate.make_workflow([], output_dir=moved / "a#b", slice_axis="SI")
    workflow.initialize()
    evaluator = workflow.parser.get_parsed_content("evaluator")
    assert evaluator.network.origin["path"] == str(moved / "model.pt")
    assert len(evaluator.data_loader) == 0 and workflow.parser["slice_axis"] == "SI"
    for changes, words in (
        ({"scale": "2x2x1"}, "scale is '2x2x1'"),
        ({"training_range": [1, 2]}, "training_range is [1, 2]"),
        ({"training_range": {"slice_spacing": 2}}, "slice_spacing is 2"),
        ({"digest": None}, ""),
    ):
        before = json.loads((moved / "model.json").read_text())
        (moved / "model.json").write_text(json.dumps(before | changes))
        refused(lambda: list_candidates(str(moved.parent), {}), ValueError, moved / "model.json", words)
        (moved / "model.json").write_text(json.dumps(before))
    for file in moved.glob("*.json"):
        file.unlink()
    assert found(str(moved.parent), {}) == {"srcnn 2x2x1": (None, True)}


def test_of_two_sizes_the_device_decides(models, monkeypatch):
    """But a size that was trained for the scan's voxels goes first, and one that is named is used."""
    save(models / "model_large.pt", [2, 2, 1], slice_axis="AP", features=[8, 4])

    def choose(spacing=1.5, **given):
        known = [candidate for candidate in list_candidates("srcnn", given) if candidate.is_available]
        return rank_choices(np.diag([spacing, spacing, 4, 1]), known, False)[0].candidate

    for device, name in (("cpu", "srcnn 2x2x1"), ("cuda:1", "srcnn 2x2x1, large"), ("mps", "srcnn 2x2x1, large")):
        assert choose(device=device).name == name
        monkeypatch.setattr(catalogue, "choose_device", partial(torch.device, device))
        assert choose().name == name
    assert choose(checkpoint=str(models / "model.pt")).name == "srcnn 2x2x1"
    assert choose(device="cpu", checkpoint=str(models / "model_large.pt")).name == "srcnn 2x2x1, large"
    network, _ = choose().load_network(device="cpu")
    assert network.state_dict()["body.0.weight"].shape[0] == 8
    save(models / "model_large.pt", [2, 2, 1], slice_axis="AP", training_range={"in_plane_spacing": [1, 1.4]})
    assert choose().name == "srcnn 2x2x1"


def test_weights_of_ones_own_bring_their_overlay(models, tmp_path):
    """It says of which bundle they are; where they lie now counts, not where the overlay has them."""
    own = tmp_path / "a#b" / "own.pt"
    save(models.parent / "models" / "own.pt", [4, 4, 1])
    own.parent.mkdir()
    for ending in (".pt", ".json"):
        shutil.move(models / f"own{ending}", own.with_suffix(ending))
    (candidate,) = list_candidates(None, {"checkpoint": str(own)})
    assert (candidate.name, candidate.overlay, candidate.is_available) == (
        "srcnn 4x4x1",
        own.with_suffix(".json"),
        True,
    )
    network = candidate.make_workflow([], output_dir=tmp_path).parser.get_parsed_content("evaluator").network
    assert network.origin["path"] == str(own)
    refused(lambda: list_candidates("other", {"checkpoint": str(own)}), ValueError, own, "srcnn", "--bundle other")
    overlay = json.loads(own.with_suffix(".json").read_text())
    del overlay["trained"]["bundle"]
    own.with_suffix(".json").write_text(json.dumps(overlay))
    refused(lambda: list_candidates(None, {"checkpoint": str(own)}), ValueError, own, "give --bundle")
    assert len(list_candidates("srcnn", {"checkpoint": str(own)})) == 1
    own.with_suffix(".json").unlink()
    refused(lambda: list_candidates("srcnn", {"checkpoint": str(own)}), FileNotFoundError, own, "own.json")
    refused(lambda: list_candidates(None, {"checkpoint": "none.pt"}), FileNotFoundError, "--checkpoint none.pt")


def test_arguments_of_components_are_keys_too(models):
    set_keys = {"evaluator#amp": True, "preprocessing::transforms::0::set_aside": False, "features": [4, 4]}
    assert list_candidates(None, set_keys)[0].overrides.keys() == {*set_keys, "checkpoint"}
    for key in ("evaluator#am", "nothing#amp", "scale#amp", "evaluator#network#network#amp"):
        refused(lambda key=key: list_candidates(None, {key: True}), ValueError, f"--{key}: there is no such option of")


def test_the_package_may_have_another_name(models, monkeypatch):
    """As where it is installed: references to it follow, and paths stay."""
    monkeypatch.setattr(catalogue, "__package__", "mri_sr_bundles.common.program")
    (candidate, _) = list_candidates(None, {})
    config = candidate.make_workflow([], output_dir=models / "common" / "data").parser.config
    assert config["evaluator"]["_target_"] == "mri_sr_bundles.common.program.cases.evaluator.CaseEvaluator"
    assert config["output_dir"] == models / "common" / "data" and config["checkpoint"] == models / "model.pt"
