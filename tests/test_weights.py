"""Weights and their overlay: whole, known, harmless to load, and refused where they do not belong together."""

import json
import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from common.data.description import describe_bundle
from common.degradations import GaussianProfile, KSpaceTruncation
from common.runtime.machine import name_machine
from common.weights.loading import STATE, compute_digest, load_weights, read_overlay
from common.weights.saving import SavedWeights, average_weights, write_overlay
from common.weights.task import name_network

from .refused import refused

SIZES = {"scale": (2, 2, 1), "slice_axis": "SI", "features": 3}
PROFILE = GaussianProfile((2, 2, 1))


def network_of(features=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, features, 3), nn.BatchNorm2d(features))


def saved(path, network=None, sizes=SIZES, **told):
    """Weights of the bundle in whose folder models lies."""
    root = path.parent.parent
    (root / "configs").mkdir(parents=True, exist_ok=True)
    (root / "configs" / "metadata.json").write_text('{"version": "1.2.3"}')
    SavedWeights(network or network_of(), [path], sizes, PROFILE.offset, root).save(**told)
    return path


@pytest.fixture
def path(tmp_path):
    return saved(tmp_path / "mine" / "models" / "model.pt", iteration=8, psnr=30.5)


def edit(path, **changes):
    write_overlay(path, {**json.loads(path.with_suffix(".json").read_text()), **changes})


def test_the_overlay_is_a_config_and_the_weights_are_a_plain_state_dict(path, tmp_path):
    network, overlay = network_of(), read_overlay(path)
    trained = {"bundle": "mine", "version": "1.2.3", "network": "Sequential", "offset": [0.5, 0.5, 0.0]}
    made = {"seed": torch.initial_seed(), "machine": name_machine(torch.device("cpu"))}
    assert overlay == {
        "checkpoint": str(path),
        "digest": compute_digest(network.state_dict()),
        "trained": {**trained, "precision": "float32", **made, "iteration": 8, "psnr": 30.5},
        "scale": [2, 2, 1],
        "slice_axis": "SI",
        "features": 3,
    }
    config = tmp_path / "inference.json"
    config.write_text('{"scale": [2, 2, 2], "features": 8, "checkpoint": null, "digest": null}')
    assert ConfigParser.load_config_files([str(config), str(path.with_suffix(".json"))]) == overlay
    for mmap in (False, True):
        state = torch.load(path, weights_only=True, mmap=mmap)
        assert list(state) == list(network.state_dict())
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    files = [file.read_bytes() for file in (path, path.with_suffix(".json"))]
    assert files == [file.read_bytes() for file in (saved(path, iteration=8, psnr=30.5), path.with_suffix(".json"))]
    loaded = load_weights(network_of(seed=1), path, digest=overlay["digest"], degradation=PROFILE)
    assert not loaded.training and compute_digest(loaded.state_dict()) == overlay["digest"]
    assert loaded.origin.items() > {**overlay["trained"], "path": str(path), "sha256": overlay["digest"]}.items()
    other = tmp_path / "other"
    refused(lambda: saved(other / "models" / "a.pt", sizes={"a": torch.device("cpu")}), ValueError, "sizes", "JSON")
    assert not (other / "models").exists()


def test_the_digest_is_of_names_types_shapes_and_values():
    a, b = torch.arange(4.0), torch.tensor(1)
    others = [{"a": a, "c": b}, {"a": a.reshape(2, 2), "b": b}, {"a": a + 1e-6, "b": b}, {"a": a, "b": b.int()}]
    assert compute_digest({"a": a, "b": b}) == compute_digest({"b": b, "a": a})
    assert len({compute_digest(state) for state in ({"a": a, "b": b}, *others)}) == 5
    plane = torch.rand(2, 3, 4, 5)
    assert compute_digest({"a": plane}) == compute_digest({"a": plane.to(memory_format=torch.channels_last)})


def test_what_does_not_belong_together_is_refused(path):
    """With both values, the file and what to do: another network, scale, place of voxels, digest or architecture."""
    load = partial(load_weights, network_of(), path)
    lay = f"--config_file \"['CONFIG.json','{path.with_suffix('.json')}']\""
    for begin, *words in (
        (lambda: load_weights(nn.Conv2d(1, 3, 3), path), "a Conv2d", "a Sequential", "mine", "--checkpoint"),
        (partial(load, degradation=GaussianProfile((3, 3, 1))), "scale is [3, 3, 1]", "[2, 2, 1]"),
        (partial(load, degradation=KSpaceTruncation((2, 2, 1))), "offset", "[0.0, 0.0, 0.0]", "--degradation"),
        (partial(load, digest="ab"), lay),
        (lambda: load_weights(network_of(4), path), "(3, 1, 3, 3) float32 instead of (4, 1, 3, 3)", lay),
    ):
        refused(begin, ValueError, path, *words)
    net = network_of()
    net.sizes = {"features": 3, "scale": (2, 2, 1), "residual": False}  # the overlay says nothing of the last
    load_weights(net, path)
    edit(path, residual=True)
    refused(lambda: load_weights(net, path), ValueError, path, "residual is False", "trained with True", lay)
    refused(lambda: load_weights(nn.Conv2d(1, 3, 3), path, option="initial"), ValueError, "--initial PATH")
    path.with_suffix(".json").unlink()
    load_weights(network_of(), path, degradation=GaussianProfile((3, 3, 1)))  # they say nothing, and fit
    refused(lambda: load_weights(network_of(4), path), ValueError, "no model.json")
    bad = network_of()
    bad[0].bias.data[1] = torch.nan
    refused(lambda: load_weights(network_of(), saved(path, bad)), ValueError, path, "0.bias and 0 other", "NaN")


def test_the_mean_of_the_start_and_the_trained_weights(path, tmp_path):
    start, wider = tmp_path / "start.pt", tmp_path / "wider.pt"
    first, last = network_of(seed=1).state_dict(), network_of().state_dict()
    torch.save(first, start)
    torch.save(network_of(features=4).state_dict(), wider)
    refused(lambda: average_weights(wider, path), ValueError, "wider.pt", str(path))
    known = read_overlay(path)
    average_weights(start, path)
    mean = load_weights(network_of(seed=2), path, digest=read_overlay(path)["digest"], degradation=PROFILE).state_dict()
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor.double(), (first[name].double() + last[name].double()) / 2)
    known["trained"]["averaged_with"] = compute_digest(first)
    del known["trained"]["psnr"]  # of the weights before
    assert read_overlay(path) == known | {"digest": compute_digest(mean)}
    average_weights(start, path)  # a finished run that is resumed
    average_weights(None, path)
    assert read_overlay(path)["digest"] == compute_digest(mean)
    path.with_suffix(".json").unlink()
    refused(lambda: average_weights(start, path), FileNotFoundError, "model.json")


def test_an_overlay_that_people_edit(path):
    """Other sizes are their matter; what it must have is checked, and the message says what is wrong with it."""
    edit(path, highest_consistency_error=0.05, training_range=None)
    load_weights(network_of(), path)
    for changes, words in (
        ({"digest": None}, "digest is None"),
        ({"digest": 5}, "digest is 5"),
        ({"trained": "by me"}, "trained is 'by me'"),
        ({"trained": {"bundle": ["mine"]}}, "trained#bundle is ['mine']"),
        ({"trained": {"network": 3}}, "trained#network is 3"),
        ({"checkpoint": None}, "checkpoint is None"),
    ):
        before = read_overlay(path)
        edit(path, **changes)
        refused(lambda: load_weights(network_of(), path), ValueError, path.with_suffix(".json"), words)
        write_overlay(path, before)
    edit(path, scale="2x2x1")
    refused(lambda: load_weights(network_of(), path, degradation=PROFILE), ValueError, "scale is [2, 2, 1]", "2x2x1")
    for text in ("{", "[1]", '{"scale": [2, 2, 1]}', ""):
        path.with_suffix(".json").write_text(text)
        refused(lambda: load_weights(network_of(), path), ValueError, path.with_suffix(".json"))


def test_a_training_that_is_killed_between_the_two_files(path, monkeypatch):
    """Weights and overlay are then of two moments, which is refused, and mended by the next time they are saved."""
    swap, later = os.replace, network_of(seed=5)

    def killed(source, target):
        if str(target).endswith(".pt"):
            raise KeyboardInterrupt
        swap(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        saved(path, later)
    assert sorted(os.listdir(path.parent)) == ["model.json", "model.pt"]
    refused(lambda: load_weights(network_of(), path), ValueError, path, "killed", "--resume True")
    load_weights(network_of(), saved(path, later))


def test_weights_that_were_moved(path, tmp_path):
    """The overlay's checkpoint is where they were trained; the message says what to set, and there they load."""
    moved = shutil.move(path.parents[1], tmp_path / "elsewhere") / "models" / "model.pt"
    gone = read_overlay(moved)["checkpoint"]
    refused(lambda: load_weights(network_of(), gone), FileNotFoundError, gone, "--checkpoint PATH", "moved")
    load_weights(network_of(), moved, digest=read_overlay(moved)["digest"])


def test_files_that_are_no_weights_are_refused_and_run_no_code(tmp_path, monkeypatch):
    path, own = tmp_path / "model.pt", network_of(seed=1).state_dict()

    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "exploded"), "w")

    refuse = partial(refused, partial(load_weights, network_of(), path))
    refuse(FileNotFoundError, path, "--checkpoint")
    refused(partial(load_weights, network_of(), path, option="initial"), FileNotFoundError, path, "--initial")
    torch.save(own, path)
    good = path.read_bytes()
    state = dict.fromkeys(STATE) | {"iteration": 7}
    torch.save(state, tmp_path / "state.pt")
    words = f"--checkpoint {path}", "--resume True", "iteration 7"
    refused(lambda: load_weights(network_of(), tmp_path / "state.pt"), ValueError, *words)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(lambda: load_weights(network_of(), path, "cuda:0"), ValueError, "cuda:0", "no GPU")
    few = {"0.weight": own["0.weight"], "0.bias": 5, "2.bias": torch.ones(1)}
    three = {name: value for name, value in own.items() if name.startswith(("0", "1.running_mean", "1.bias"))}
    wide = network_of(4).state_dict()
    for content, *words in (
        (wide, "Missing: none. Unknown: none.", "0.weight (4, 1, 3, 3) float32 instead of (3, 1, 3, 3)"),
        (few, "Missing: 1.weight, 1.bias, 1.running_mean and 2 more.", "Unknown: 2.bias.", "0.bias int"),
        (three, "Missing: 1.weight, 1.running_var, 1.num_batches_tracked."),
        ([torch.ones(1)], "dictionary", "list"),
        (Bomb(), "not a checkpoint"),
        *((data, "not a checkpoint") for data in (b"", good[: len(good) // 2], b"PK\x03\x04 not a zip", b"x" * 500)),
        (pickle.dumps(Bomb(), protocol=2), "not a checkpoint"),
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        refuse(ValueError, path, *words)
    assert not (tmp_path / "exploded").exists()


def test_an_evaluation_names_a_network_of_ones_own_by_its_class():
    config = {"method": "SRCNN", "network_def": {"_target_": "my_networks.Tiny"}}
    usual = json.loads(Path("bundles/srcnn/configs/train.json").read_text())
    nested = {**usual["network_def"], "body": "@my_body"}
    for changes, name in (
        (config, "Tiny"),
        ({"network_def": nested, "my_body": {"_target_": "my_networks.Body"}}, "Body"),
        ({**config, "method": "mine"}, None),
        ({"features": [8, 8]}, None),
    ):
        assert name_network({**usual, **changes}, "bundles/srcnn") == name


def test_what_ships_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = read_overlay("bundles/udean_window/models/model.pt")
    assert shipped["trained"]["bundle"] == describe_bundle("bundles/udean_window")["name"] == "udean_window"
    assert "version" in describe_bundle("bundles/udean_window") and read_overlay("bundles/mine/model.pt") is None
