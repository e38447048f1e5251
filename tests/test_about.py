import json
import shutil
import zipfile
from functools import partial

import pytest
import torch
from torch import nn

from common.about import check_settings, fitting, kept, remembered, tensors_sha256
from common.handlers import LastModel, load_stages, load_weights
from common.io.files import append_about, read_about
from common.networks import Cascade

from .refused import refused

SETTINGS = {"scale": (2, 2, 1), "features": 3, "slice_axis": "AP", "guided": True}
CUBES = {**SETTINGS, "scale": [2, 2, 2]}


def network_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))


def write(path, network=None, settings=SETTINGS, **told):
    root = path.parent.parent  # the bundle's
    (root / "configs").mkdir(parents=True, exist_ok=True)
    (root / "configs" / "metadata.json").write_text('{"version": "1.2.3"}')
    LastModel(network or network_of(), [path], settings, bundle_root=root, **told).save()
    return path


@pytest.fixture
def weights(tmp_path):
    return write(tmp_path / "mine" / "models" / "model.pt", defaults={"projections": 0})


def test_what_a_file_says(weights):
    """It is a plain state_dict to torch, a record of the archive to anyone, and the same bytes each time."""
    network = network_of()
    about = {"bundle": "mine", "version": "1.2.3", "network": "Sequential", "defaults": {"projections": 0}}
    about |= {"settings": {**SETTINGS, "scale": [2, 2, 1]}, "sha256": tensors_sha256(network.state_dict())}
    assert read_about(weights) == about
    for mmap in (False, True):
        state = torch.load(weights, weights_only=True, mmap=mmap)
        assert list(state) == list(network.state_dict())
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with zipfile.ZipFile(weights) as archive:
        assert json.loads(archive.read("archive/extra/about.json")) == about
    assert weights.read_bytes() == write(weights, defaults={"projections": 0}).read_bytes()
    loaded = load_weights(network_of(1), weights, settings=SETTINGS).about
    assert loaded.items() > {**about, "path": str(weights)}.items()


def test_the_sum_is_of_names_types_shapes_and_values():
    a, b = torch.arange(4.0), torch.tensor(1)
    others = [{"a": a, "c": b}, {"a": a.reshape(2, 2), "b": b}, {"a": a + 1e-6, "b": b}, {"a": a, "b": b.int()}]
    assert tensors_sha256({"a": a, "b": b}) == tensors_sha256({"b": b, "a": a})
    assert len({tensors_sha256(state) for state in ({"a": a, "b": b}, *others)}) == 5
    plane = torch.rand(2, 3, 4, 5)
    assert tensors_sha256({"a": plane}) == tensors_sha256({"a": plane.to(memory_format=torch.channels_last)})


def test_values_are_remembered(weights, tmp_path):
    """Those that the file has, and for all others, and for files that say nothing, that which is given."""
    assert remembered(weights, features=48) == 3 and remembered(str(weights), scale=[1, 1, 1]) == [2, 2, 1]
    assert remembered(weights, projections=8) == 0 and remembered(weights, blocks=5) == 5
    torch.save(network_of().state_dict(), tmp_path / "older.pt")
    (tmp_path / "damaged.pt").write_bytes(weights.read_bytes()[:-300])
    for path in (None, tmp_path / "none.pt", tmp_path / "older.pt", tmp_path / "damaged.pt"):
        assert remembered(path, features=48) == 48


def test_a_contradiction_is_refused(weights):
    """With the key, both values and the file; what the file does not know, and "auto", contradict nothing."""
    for other, told in (
        ({"features": 8}, ["features is 8, but these weights were trained with 3."]),
        ({"scale": [2, 2, 2]}, ["scale is [2, 2, 2], but these weights were trained with [2, 2, 1]."]),
        ({"slice_axis": "SI", "guided": False}, ["slice_axis is 'SI', but", "'AP'; guided is False, but", " True."]),
    ):
        words = ["mine/models/model.pt, of mine 1.2.3: ", "Leave out", *other, *told]
        refused(partial(load_weights, network_of(), weights, settings=SETTINGS | other), ValueError, *words)
    load_weights(network_of(), weights, settings=SETTINGS | {"slice_axis": "auto", "blocks": 5, "features": 3.0})


def test_weights_beside_the_file_that_fit_are_named_and_the_overlay_that_takes_them(weights):
    other = write(weights.with_name("model_2x2x2.pt"), settings=CUBES)
    write(weights.with_name("model_3.pt"), settings={**SETTINGS, "scale": [3, 3, 3]})
    assert refused(lambda: check_settings(weights, CUBES), ValueError).endswith(f"that fit: --checkpoint {other}.")
    overlay = weights.parents[1] / "configs" / "inference_cubes.json"
    overlay.write_text(json.dumps({"checkpoint": "$@bundle_root + '/models/model_2x2x2.pt'"}))
    refused(lambda: check_settings(weights, CUBES, "initial"), ValueError, f": --initial {other}, as {overlay} does.")
    assert fitting(weights, scale=[2, 2, 2]) == str(other)
    assert fitting(weights, scale=[2, 2, 1]) == fitting(weights, scale=[9, 9, 9]) == str(weights)
    assert kept(weights, "scale") == [[2, 2, 1], [2, 2, 2], [3, 3, 3]]
    assert kept(other, "scale") == [[2, 2, 2]] and fitting(other, scale=[3, 3, 3]) == str(other), "as it is named"
    assert kept(weights, "nothing") == kept(weights.with_name("none.pt"), "scale") == []


def test_what_cannot_be_trusted_is_refused(weights, tmp_path):
    """Weights of another network, changed ones, what cannot be read of a file, and a setting that JSON cannot hold."""
    refused(lambda: load_weights(nn.Conv2d(1, 3, 3), weights), ValueError, "model.pt", "a Conv2d", "Sequential", "mine")
    changed, about = torch.load(weights, weights_only=True), read_about(weights)
    changed["0.bias"] += 1e-6
    torch.save(changed, weights)
    load_weights(network_of(), weights, settings={"features": 8})  # it says nothing any more: as older files
    append_about(weights, about)
    refused(lambda: load_weights(network_of(), weights), ValueError, "model.pt: ", "SHA-256", "damaged or was changed")
    for text in ("{", "[1]", '{"settings": {}}'):
        torch.save(network_of().state_dict(), weights)
        with zipfile.ZipFile(weights, "a") as archive:
            archive.writestr(archive.namelist()[0].split("/")[0] + "/extra/about.json", text)
        refused(lambda: load_weights(network_of(), weights), ValueError, "model.pt: ", "cannot be read")
    path = tmp_path / "models" / "none.pt"
    refused(lambda: write(path, settings={"device": torch.device("cpu")}), ValueError, "settings: device is", "JSON")
    assert not path.exists()


def test_stages_of_another_cascade_are_refused(tmp_path):
    cascade = Cascade([network_of(i) for i in range(2)], 2)
    path = write(tmp_path / "models" / "model.pt", cascade, {"cascade": 2, "scale": [4, 4, 1]})
    load_stages(cascade, path, 1, {"scale": [4, 4, 1]})
    refused(lambda: load_stages(cascade, path, 1, {"scale": [2, 2, 1]}), ValueError, "scale is [2, 2, 1]")


def test_torchscript_says_the_same_in_its_extra_files(weights):
    scripted = weights.with_suffix(".ts")
    torch.jit.save(torch.jit.script(network_of().eval()), scripted)
    append_about(scripted, read_about(weights))
    extra = {"about.json": ""}
    torch.jit.load(scripted, _extra_files=extra)
    assert json.loads(extra["about.json"]) == read_about(scripted) == read_about(weights)
    refused(lambda: check_settings(scripted, {"features": 8}), ValueError, "model.ts", "features is 8")
    shutil.copyfile(scripted, weights.with_name("copy.ts"))
    assert fitting(scripted, features=8) == str(scripted)
