"""Pages to look at: what is in the file, by itself; tests/clients/test_viewer.py opens them in a browser."""

import base64
import io
import json
import re
import sys
from pathlib import Path

import matplotlib.image as plt
import nibabel as nib
import numpy as np
import pytest

from common.program.pages.page import read_result_record, write_viewer

from ..bundles.runs import OBLIQUE
from ..pages import Page
from ..refused import refused

SHEARED = OBLIQUE @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def test_the_page(tmp_path):
    """Volumes come back in place, to half a step, cut off at the scan's ends; the page loads nothing."""
    hr = (np.random.default_rng(0).random((12, 10, 8)) ** 4 * 900 - 40).astype(np.float32)
    scan = nib.Nifti1Image(hr[::2, ::2, ::2].astype(np.int16), SHEARED @ np.diag([2, 2, 2, 1]))
    hr[0, 0, 0] = np.nan
    images = {
        "scan": scan,
        'a < "b" & c': nib.Nifti1Image(hr[::-1].copy(), SHEARED @ np.diag([-1, 1, 1, 1])),  # no error: it is mirrored
        "SR": nib.Nifti1Image(hr + 7, SHEARED),
        "HR": nib.Nifti1Image(hr, SHEARED),
    }
    write_viewer(tmp_path / "new" / "page.html", images, "<i>scan</i> & </script>", truth="HR", position=(1, 2, 3))
    page = Page(tmp_path / "new" / "page.html")
    low, high = scan.get_fdata().min(), np.quantile(scan.get_fdata(), 0.999)
    assert low < 0 and page.title == "<i>scan</i> & </script>" and list(page.volumes) == list(images)
    for name, image in page.volumes.items():
        np.testing.assert_allclose(image.affine, images[name].affine, atol=1e-5)
        np.testing.assert_allclose(image.header.get_zooms(), nib.affines.voxel_sizes(images[name].affine), rtol=1e-5)
        expected = np.nan_to_num(images[name].get_fdata()).clip(low, high)
        np.testing.assert_allclose(image.get_fdata(), expected, atol=0.51 * (high - low) / 255)
        assert [float(image.header[key]) for key in ("cal_min", "cal_max")] == page.settings["window"]
    errors = {"truth": "HR", "of": ["SR"], "window": [0, pytest.approx(7, abs=0.01)]}
    assert page.settings == {"window": pytest.approx([low, high]), "at": [1, 2, 3], "errors": errors}
    assert all(address.startswith("data:image/png") for address in page.loaded)
    assert "default-src 'none'" in page.text and "Redistribution" in page.text
    own = re.sub(r'<script type="application/gzip".*?</script>', "", page.text, flags=re.DOTALL)
    assert not re.search(r"https?:|url\(|@import", own)
    assert len(re.findall(r"export\{[\w$]+ as Niivue\}", page.niivue)) == 1


def test_what_was_added_lies_over_the_result(tmp_path):
    """Signed, in the units of the scan; its few strongest voxels have one colour."""
    rng = np.random.default_rng(0)
    images = {name: nib.Nifti1Image(rng.random((12, 10, 8)), SHEARED) for name in ("scan", "SR", "HR")}
    added = rng.standard_normal((12, 10, 8)).astype(np.float32)
    image = nib.Nifti1Image(added, SHEARED)
    record = {"Added": {"dark": 0.031, "bright": 0.012}}
    write_viewer(tmp_path / "page.html", images, "", truth="HR", record=record, added=image)
    page = Page(tmp_path / "page.html")
    (least, largest), step = page.settings["added"]["window"], 0.51 * page.settings["added"]["window"][1] / 127
    assert page.settings["added"]["on"] == "SR" and 0 < least < largest < np.abs(added).max()
    np.testing.assert_allclose(page.overlay.get_fdata(), added.clip(-largest, largest), atol=step)
    np.testing.assert_allclose(page.overlay.affine, SHEARED, atol=1e-5)
    assert "3.1 % of dark, 1.2 % of bright" in page.text and list(page.volumes) == list(images)
    write_viewer(tmp_path / "page.html", images, "", record={"Added": {"Unknown": "no <reason>"}})
    page = Page(tmp_path / "page.html")
    assert page.overlay is None and "not known: no &lt;reason&gt;" in page.text and "added" not in page.settings


MADE = {"Bundle": "udean", "BundleVersion": "0.6.0", "Weights": {"File": "m.pt", "FileSha256": "0123456789abcdef"}}


@pytest.mark.parametrize(
    "about, words",
    [
        (None, ["Research only. Not for diagnosis."]),
        (MADE, ["SR</b>: made by udean 0.6.0, weights m.pt (SHA-256 0123456789ab)\n"]),
        ({**MADE, "Adapted": {"Used": True}}, ["fine-tuned on this scan"]),
        ({"Bundle": 5, "Weights": 5, "Adapted": 5, "Warnings": 5}, ["made by 5, no file of weights"]),
        (
            {"Warnings": ["a <i>"], "Notices": ["b", "<"]},
            ['<details id="warnings" open>', "<li>warning: a &lt;i&gt;", "<li>notice: &lt;", "1 warning and 2 notices"],
        ),
        ({"Warnings": [], "Notices": ["b"]}, ['<details id="warnings"><summary>1 notice about', "<li>notice: b"]),
    ],
)
def test_what_made_it(tmp_path, about, words):
    images = {name: nib.Nifti1Image(np.ones((4, 4, 4)), np.eye(4)) for name in ("scan", "SR", "HR")}
    write_viewer(tmp_path / "page.html", images, "s.nii.gz", truth="HR", record=about)
    text = Page(tmp_path / "page.html").text
    mark = '<details id="warnings"'
    assert all(word in text for word in words) and (mark in text) == words[0].startswith(mark)


def test_the_json_of_a_result(tmp_path):
    """What another program wrote says nothing; what cannot be read is named in a warning."""
    result, file = tmp_path / "x_sr.nii.gz", tmp_path / "x_sr.json"
    for content, said in (({"SuperResolution": MADE}, MADE), ({}, None), ({"SuperResolution": 5}, None)):
        file.write_text(json.dumps(content))
        assert read_result_record(result) == said
    file.write_text("{,}")
    with pytest.warns(UserWarning, match=f"^{re.escape(str(file))}: not valid JSON"):
        assert read_result_record(result) is None


def test_the_slices_of_stacks(tmp_path):
    """The colours of the picture say which slices count less; a stack that was left out has its reason."""
    slices = {"Residual": [0.02, 0.1, 0.03, None], "Weight": [1, 0, 0.5, 1], "Gain": [1, 1.1, 0.9, 1]}
    stacks = {"a/x$1.nii.gz": {"Slices": slices}, "a/y.nii.gz": {"LeftOut": "it is <unlike>"}}
    pixels = {}
    for name, weights in (("odd", slices["Weight"]), ("even", [1, 1, 1, 1])):
        stacks["a/x$1.nii.gz"] = {"Slices": {**slices, "Weight": weights}}
        image = nib.Nifti1Image(np.ones((4, 4, 4)), np.eye(4))
        write_viewer(tmp_path / "page.html", {"SR": image}, "exam", record={"Adapted": stacks})
        text = Page(tmp_path / "page.html").text
        assert "y.nii.gz: it is &lt;unlike&gt;" in text
        picture = base64.b64decode(re.search(r"id=\"stacks\".*?base64,([^\"]+)", text, re.DOTALL)[1])
        red, green, blue, _ = np.moveaxis(plt.imread(io.BytesIO(picture)), -1, 0)
        pixels[name] = [int(each.sum()) for each in (blue > red + 0.3, (red > 0.8) & (green < 0.3), red > blue + 0.9)]
    assert all(pixels["odd"]) and pixels["even"][0] and not any(pixels["even"][1:]), pixels


@pytest.mark.parametrize("value", [0, -3, 5])
def test_a_volume_of_one_value_has_a_window(tmp_path, value):
    image = nib.Nifti1Image(np.full((4, 4, 4), value, np.int16), np.eye(4))
    write_viewer(tmp_path / "page.html", {"scan": image}, "flat")
    page = Page(tmp_path / "page.html")
    low, high = page.settings["window"]
    assert low < high and page.settings["errors"] is None
    np.testing.assert_allclose(page.volumes["scan"].get_fdata(), value, atol=0.02)


MADE_WITH = 'console.log("Creating new Niivue instance"),view=new a$({});'


@pytest.mark.parametrize(
    "script, words",
    [
        (None, ["ipyniivue"]),
        ("a$=class{};export{w as default}", ["ipyniivue 9.0"]),
        (f"{MADE_WITH}a$=class{{}};", ["ipyniivue 9.0"]),
        (f"{MADE_WITH}aa$=class{{}};export{{w as default}}", ["ipyniivue 9.0"]),
        (f"{MADE_WITH}a$=class{{}};export{{w as default}}", []),
    ],
)
def test_without_the_package_or_niivue_in_it(tmp_path, monkeypatch, script, words):
    """The message names the version that works, and it is the one that the extra installs."""
    page, installed = tmp_path / "page.html", tmp_path / "ipyniivue-9.0.dist-info"
    if script is not None:
        installed.mkdir()
        (tmp_path / "widget.js").write_text(script)
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: ipyniivue\nVersion: 9.0\n")
        (installed / "RECORD").write_text("widget.js,,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    images = {"scan": nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4))}
    if not words:
        write_viewer(page, images, "")
        assert "export{a$ as Niivue}" in Page(page).niivue
        return
    (extra,) = re.findall(r'^viewer = \["(.*)"\]', Path("pyproject.toml").read_text(encoding="utf-8"), re.M)
    refused(lambda: write_viewer(page, images, ""), ModuleNotFoundError, *words, f"pip install {extra}")
    assert not page.exists()
