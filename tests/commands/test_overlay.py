"""``python -m common overlay``: weights of an earlier version get their overlay, or it is said why not."""

import json
import zipfile
from functools import partial

import pytest
import torch

from common.commands.overlay import write_missing_overlay
from common.weights import compute_digest, load_weights, read_overlay
from tests.bundles import runs
from tests.refused import refused

SETTINGS = {"scale": [2, 2, 1], "slice_axis": "SI", "offset": [0.5, 0.5, 0.0], "features": [4, 4]}


def network_of(features=(4, 4)):
    torch.manual_seed(0)
    return runs.content("srcnn", "network_def", "inference", features=list(features))


def written(path, settings=SETTINGS, defaults=None, **told):
    """Weights as an earlier version wrote them: what they are is a record of the archive."""
    state = network_of().state_dict()
    about = {"bundle": "srcnn", "version": "0.4.0", "network": "SRCNN", "settings": settings}
    about |= {"defaults": defaults or {}, "sha256": compute_digest(state), **told}
    torch.save(state, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/extra/about.json", json.dumps(about))
    return path


def test_old_weights_get_their_overlay(tmp_path, capsys):
    """With which they load; the file itself stays as it is, and what the bundle does not know is named."""
    ranges = {"slice_spacing": [1, 2]}
    training = {"iteration": 9, "psnr": 30.5}
    path = written(tmp_path / "old.pt", defaults={"lr_patch": [8, 8, 1], "ranges": ranges}, training=training)
    before = path.read_bytes()
    write_missing_overlay(str(path))
    said = capsys.readouterr().out
    assert "old.json describes old.pt" in said and "left out, as srcnn does not know it: ranges\n" in said
    found, version = read_overlay(path), {"bundle": "srcnn", "version": "0.4.0"}
    assert found.pop("trained") == {**version, "network": "InterpolatedNetwork", "offset": [0.5, 0.5, 0.0], **training}
    sizes = {key: value for key, value in SETTINGS.items() if key != "offset"}
    digest = compute_digest(network_of().state_dict())
    assert found == {"checkpoint": str(path), "digest": digest, "lr_patch": [8, 8, 1], **sizes}
    assert path.read_bytes() == before
    load_weights(network_of(), path, digest=digest, degradation=runs.TINY["srcnn"].degradation)
    refused(partial(write_missing_overlay, str(path)), FileExistsError, "old.json is there already")


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        ({"settings": {**SETTINGS, "features": [8, 4]}}, ValueError, ["do not fit", "srcnn/configs/inference.json"]),
        ({"sha256": "ab"}, ValueError, ["SHA-256", "get a whole file"]),
        ({"bundle": "none"}, FileNotFoundError, ["bundles/none", "--bundle"]),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, told, kind, words):
    path = written(tmp_path / "old.pt", **told)
    refused(partial(write_missing_overlay, str(path)), kind, *words)
    assert not path.with_suffix(".json").exists()
    if "bundle" in told:
        write_missing_overlay(str(path), str(runs.ROOT / "bundles" / "srcnn"))


def test_weights_that_say_nothing_are_refused(tmp_path):
    """With what to do; those of a version that wrote no zip too."""
    path = tmp_path / "model.pt"
    refused(partial(write_missing_overlay, str(path)), FileNotFoundError, path)
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save(network_of().state_dict(), path, **options)
        refused(partial(write_missing_overlay, str(path)), ValueError, path, "have no record", "model.json")
    path.write_bytes(b"no weights")
    refused(partial(write_missing_overlay, str(path)), ValueError, path, "not a checkpoint")
