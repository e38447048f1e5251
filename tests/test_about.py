"""What weights say they are: written, remembered by configs, compared."""

import json
import shutil
import zipfile

import pytest
import torch
from torch import nn

from common.about import check_settings, fitting, kept, remembered, tensors_sha256
from common.files import append_about, read_about
from common.handlers import LastModel, load_stages, load_weights
from common.networks import Cascade

SETTINGS = {"scale": (2, 2, 1), "features": 3, "slice_axis": "AP", "guided": True}


def network_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))


def write(path, network=None, settings=SETTINGS, **told):
    """Weights at the end of an epoch, of a bundle in the folder above theirs."""
    root = path.parent.parent
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
    assert read_about(weights) == {
        "bundle": "mine",
        "version": "1.2.3",
        "network": "Sequential",
        "settings": {"scale": [2, 2, 1], "features": 3, "slice_axis": "AP", "guided": True},
        "defaults": {"projections": 0},
        "sha256": tensors_sha256(network.state_dict()),
    }
    for how in ({}, {"mmap": True}):
        state = torch.load(weights, weights_only=True, **how)
        assert list(state) == list(network.state_dict())
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with zipfile.ZipFile(weights) as archive:
        assert json.loads(archive.read("archive/extra/about.json")) == read_about(weights)
    first = weights.read_bytes()
    assert write(weights, defaults={"projections": 0}).read_bytes() == first
    loaded = load_weights(network_of(1), weights, settings=SETTINGS)
    assert loaded.about.items() > {**read_about(weights), "path": str(weights)}.items()


def test_the_sum_is_of_names_types_shapes_and_values():
    state = {"a": torch.arange(4.0), "b": torch.tensor(1)}
    others = (
        {"a": state["a"], "c": state["b"]},
        {**state, "a": state["a"].reshape(2, 2)},
        {**state, "a": state["a"] + 1e-6},
        {**state, "b": torch.tensor(1, dtype=torch.int32)},
    )
    assert tensors_sha256(dict(reversed(state.items()))) == tensors_sha256(state)
    assert len({tensors_sha256(other) for other in (state, *others)}) == 5
    plane = torch.rand(2, 3, 4, 5)
    channels_last = plane.to(memory_format=torch.channels_last)
    assert tensors_sha256({"a": plane}) == tensors_sha256({"a": channels_last})


def test_values_are_remembered(weights, tmp_path):
    """Those that the file has, and for all others, and for files that say nothing, that which is given."""
    assert remembered(weights, features=48) == 3 and remembered(str(weights), scale=[1, 1, 1]) == [2, 2, 1]
    assert remembered(weights, projections=8) == 0 and remembered(weights, blocks=5) == 5
    torch.save(network_of().state_dict(), tmp_path / "older.pt")
    (tmp_path / "damaged.pt").write_bytes(weights.read_bytes()[:-300])
    for path in (None, tmp_path / "none.pt", tmp_path / "older.pt", tmp_path / "damaged.pt"):
        assert remembered(path, features=48) == 48


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"features": 8}, "features is 8, but these weights were trained with 3"),
        ({"scale": [2, 2, 2]}, r"scale is \[2, 2, 2\], but these weights were trained with \[2, 2, 1\]"),
        ({"slice_axis": "SI", "guided": False}, "slice_axis is 'SI', but .* 'AP'; guided is False, but .* True"),
        ({"slice_axis": "auto", "blocks": 5, "features": 3.0}, None),
    ],
)
def test_a_contradiction_is_refused(weights, other, message):
    """With the key, both values and the file; what the file does not know, and "auto", contradict nothing."""
    settings = {**SETTINGS, **other}
    if message is None:
        check_settings(weights, settings)
        load_weights(network_of(), weights, settings=settings)
        return
    for refuse in (check_settings, lambda path, settings: load_weights(network_of(), path, settings=settings)):
        with pytest.raises(ValueError, match=rf"mine/models/model\.pt, of mine 1\.2\.3: {message}\. Leave out"):
            refuse(weights, settings)


def test_weights_that_fit_are_named(weights):
    """Those beside the file, and the overlay that takes them."""
    other = write(weights.with_name("model_2x2x2.pt"), settings={**SETTINGS, "scale": [2, 2, 2]})
    write(weights.with_name("model_3.pt"), settings={**SETTINGS, "scale": [3, 3, 3]})
    cubes = {**SETTINGS, "scale": [2, 2, 2]}
    with pytest.raises(ValueError, match=rf"take weights that fit: --checkpoint {other}\.$"):
        check_settings(weights, cubes)
    overlay = weights.parents[1] / "configs" / "inference_cubes.json"
    overlay.write_text(json.dumps({"checkpoint": "$@bundle_root + '/models/model_2x2x2.pt'"}))
    with pytest.raises(ValueError, match=rf"fit: --initial {other}, as {overlay} does\.$"):
        check_settings(weights, cubes, "initial")
    assert fitting(weights, scale=[2, 2, 2]) == str(other)
    assert fitting(weights, scale=[2, 2, 1]) == fitting(weights, scale=[9, 9, 9]) == str(weights)
    assert kept(weights, "scale") == [[2, 2, 1], [2, 2, 2], [3, 3, 3]]
    assert kept(other, "scale") == [[2, 2, 2]] and fitting(other, scale=[3, 3, 3]) == str(other), "as it is named"
    assert kept(weights, "nothing") == kept(weights.with_name("none.pt"), "scale") == []


def test_of_another_network_or_changed(weights):
    with pytest.raises(ValueError, match=r"model\.pt: expected the weights of a Conv2d, found .* Sequential, .* mine"):
        load_weights(nn.Conv2d(1, 3, 3), weights)
    changed = torch.load(weights, weights_only=True)
    changed["0.bias"] += 1e-6
    about = read_about(weights)
    torch.save(changed, weights)
    load_weights(network_of(), weights, settings={"features": 8})  # it says nothing any more: as older files
    append_about(weights, about)
    with pytest.raises(ValueError, match=r"model\.pt: the weights are not those .*SHA-256.* damaged or was changed"):
        load_weights(network_of(), weights)


@pytest.mark.parametrize("text", ["{", "[1]", '{"settings": {}}'])
def test_what_cannot_be_read_is_not_passed_over(weights, text):
    torch.save(network_of().state_dict(), weights)
    with zipfile.ZipFile(weights, "a") as archive:
        archive.writestr(archive.namelist()[0].split("/")[0] + "/extra/about.json", text)
    with pytest.raises(ValueError, match=r"model\.pt: what it says of itself cannot be read"):
        load_weights(network_of(), weights)


def test_what_json_cannot_hold_is_no_setting(tmp_path):
    with pytest.raises(ValueError, match=r"settings: device is device.*expected what JSON can hold"):
        write(tmp_path / "model.pt", settings={"device": torch.device("cpu")})
    assert not (tmp_path / "model.pt").exists()


def test_stages_of_another_cascade_are_refused(tmp_path):
    def cascade():
        return Cascade([network_of(i) for i in range(2)], 2)

    path = write(tmp_path / "models" / "model.pt", cascade(), {"cascade": 2, "scale": [4, 4, 1]})
    load_stages(cascade(), path, 1, {"scale": [4, 4, 1]})
    with pytest.raises(ValueError, match=r"scale is \[2, 2, 1\]"):
        load_stages(cascade(), path, 1, {"scale": [2, 2, 1]})


def test_torchscript_says_the_same(weights):
    """As torch.jit's own extra files: torch.jit reads it, and so does read_about."""
    scripted = weights.with_suffix(".ts")
    torch.jit.save(torch.jit.script(network_of().eval()), scripted)
    append_about(scripted, read_about(weights))
    assert read_about(scripted) == read_about(weights)
    extra = {"about.json": ""}
    torch.jit.load(scripted, _extra_files=extra)
    assert json.loads(extra["about.json"]) == read_about(weights)
    with pytest.raises(ValueError, match=r"model\.ts.*: features is 8"):
        check_settings(scripted, {"features": 8})
    shutil.copyfile(scripted, weights.with_name("copy.ts"))
    assert fitting(scripted, features=8) == str(scripted)
