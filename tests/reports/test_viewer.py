"""Pages to look at: what is in the file, by itself; tests/clients/test_viewer.py opens them in a browser."""

import re
import sys

import nibabel as nib
import numpy as np
import pytest

from common.reports import viewer

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
    viewer(tmp_path / "new" / "page.html", images, "<i>scan</i> & </script>", truth="HR", at=(1, 2, 3))
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
    assert page.loaded == [] and "default-src 'none'" in page.text and "Redistribution" in page.text
    own = re.sub(r'<script type="application/gzip".*?</script>', "", page.text, flags=re.DOTALL)
    assert not re.search(r"https?:|url\(|@import", own)
    exported = re.search(r"export\{([\w$]+) as Niivue\}", page.niivue)[1]
    assert re.search(rf"\b{re.escape(exported)}=class", page.niivue)


@pytest.mark.parametrize("value", [0, -3, 5])
def test_a_volume_of_one_value_has_a_window(tmp_path, value):
    viewer(tmp_path / "page.html", {"scan": nib.Nifti1Image(np.full((4, 4, 4), value, np.int16), np.eye(4))}, "flat")
    page = Page(tmp_path / "page.html")
    low, high = page.settings["window"]
    assert low < high and page.settings["errors"] is None
    np.testing.assert_allclose(page.volumes["scan"].get_fdata(), value, atol=0.02)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    images = {"scan": nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4))}
    words = ["ipyniivue is not installed", "NiiVue", "extra viewer"]
    refused(lambda: viewer(tmp_path / "page.html", images, ""), ModuleNotFoundError, *words)
    assert not list(tmp_path.iterdir())
