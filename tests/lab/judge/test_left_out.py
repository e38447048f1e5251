"""``judge --left_out``: volumes are seen through the slices of a stack that none knows."""

import csv
import itertools
import json
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.ndimage import gaussian_filter

from common.__main__ import main
from common.degradations import GaussianProfile
from common.io.read import digest_voxels
from common.lab.judge.pictures import draw_differences
from common.program.commands.judge import judge
from common.stacks import estimate_interval

from ...bundles.runs import degrade
from ...refused import refused
from ...stacks.phantom import RADII, Phantom, grid, moved, save

THICK = 0.6  # of the slices in their distances
MOTION = moved(np.array([2.0, -3.0, 1.5, 0.0, 22.0, 3.0]))
SHADE = 1.25 ** np.linspace(0.5, -0.5, 64)[:, None, None]


def make_head() -> Phantom:
    """A phantom with more and finer lumps."""
    head, rng = Phantom(), np.random.default_rng(100)
    head.centres, head.heights = rng.uniform(-0.6, 0.6, (80, 3)) * RADII, rng.choice([-0.45, 0.6], 80)
    head.widths = rng.uniform(1.5, 4.0, 80)
    return head


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    """Volumes of a head, and a stack of it with gaps: turned by 22 degrees, shaded, and stored with slices first."""
    folder, head = tmp_path_factory.mktemp("exam"), make_head()
    shape, affine = grid(2, thick=1)
    true = head.on(shape, affine)
    shape, slices = grid(1, (5, 0, 8))
    noise = np.random.default_rng(0).normal(0, 0.01, shape)
    left_out = SHADE * head.stack(shape, slices, MOTION, THICK) + noise
    order = [2, 0, 1]
    texture = gaussian_filter(np.random.default_rng(2).normal(size=(64, 64, 64)), 2)
    reversed_head = (1 - 0.9 * true) * (true > 0.02)
    files = {
        "true": save(folder / "true.nii.gz", true, affine),
        "made_up": save(folder / "made_up.nii.gz", 5 * true * (1 + 3 * texture / np.ptp(texture)), affine),
        "half": save(folder / "half.nii.gz", true[:34], affine),
        "masked": save(folder / "masked.nii.gz", true * (np.arange(64) < 34)[:, None, None], affine),
        "stack": save(folder / "stack.nii.gz", left_out.transpose(order), slices[:, [*order, 3]]),
        "other": save(folder / "other.nii.gz", 1 + texture / np.ptp(texture), affine),
        "contrast": save(folder / "contrast.nii.gz", reversed_head, affine),
        "far": save(folder / "far.nii.gz", true, affine + np.eye(4, k=3) * 500),
    }
    (folder / "stack.json").write_text(json.dumps({"SliceThickness": 4 * THICK}))
    return files


def read_rows(folder) -> dict[str, dict[str, str]]:
    with (folder / "left_out.csv").open(newline="") as file:
        return {row["result"]: row for row in csv.DictReader(file)}


def test_the_stack_is_found_and_predicted_and_the_better_volume_is_told(exam, tmp_path):
    main(["judge", exam["true"], exam["made_up"], "--left_out", exam["stack"], "--output_dir", str(tmp_path / "out")])
    rows = read_rows(tmp_path / "out")
    true, made_up = rows["true.nii.gz"], rows["made_up.nii.gz"]
    assert float(true["turn"]) == pytest.approx(22.2, abs=0.3)
    assert float(true["shift"]) == pytest.approx(np.linalg.norm(MOTION[:3, 3]), abs=0.3)
    assert float(true["correlation"]) > 0.995 > float(made_up["correlation"])
    assert (made_up["shift"], made_up["turn"]) == (true["shift"], true["turn"]), "of the better of one grid"
    assert float(true["psnr"]) > 33
    assert (true["verdict"], made_up["verdict"]) == ("best", "worse")
    assert 0 < float(made_up["behind_low"]) < float(made_up["behind"]) < float(made_up["behind_high"])
    assert (tmp_path / "out" / "true_left_out.png").stat().st_size > 10_000


def test_with_the_scan_cubic_has_a_row(exam, tmp_path):
    true = nib.load(exam["true"])
    scan = save(tmp_path / "scan.nii.gz", *degrade(true.get_fdata(), true.affine, GaussianProfile((1, 1, 4))))
    judge(exam["true"], scan=str(scan), left_out=exam["stack"], output_dir=str(tmp_path / "out"))
    rows = read_rows(tmp_path / "out")
    assert 0.9 < float(rows["cubic"]["correlation"]) < float(rows["true.nii.gz"]["correlation"])


def test_only_what_all_volumes_and_the_region_cover_is_compared(exam, tmp_path):
    image = nib.load(exam["stack"])
    mask = np.zeros(image.shape, np.uint8)
    mask[:, 20:44, 20:44] = 1
    region = str(tmp_path / "mask.nii.gz")
    nib.save(nib.Nifti1Image(mask, image.affine), region)
    shares = {}
    for names in (("true",), ("true", "half"), ("true", "masked")):
        out = tmp_path / "_".join(names)
        judge(*(exam[name] for name in names), left_out=exam["stack"], region=region, output_dir=str(out))
        rows = read_rows(out)
        assert len({row["share"] for row in rows.values()}) == 1
        assert all(float(row["correlation"]) > 0.99 for row in rows.values()), "air of exactly 0 is not compared"
        shares[names] = float(rows["true.nii.gz"]["share"])
    assert shares["true",] > 0.9
    assert shares["true", "half"] == pytest.approx(shares["true", "masked"], abs=0.03)
    assert shares["true", "half"] < 0.75 * shares["true",]


def test_what_does_not_fit_is_refused_by_name(exam, tmp_path):
    out = str(tmp_path / "out")
    call = partial(judge, left_out=exam["stack"], output_dir=out)
    for name, word in (("other", "another person"), ("contrast", "reversed"), ("far", "tissue")):
        refused(partial(call, exam[name]), ValueError, exam["stack"], exam[name], word)
    empty = str(tmp_path / "empty.nii.gz")
    nib.save(nib.Nifti1Image(np.eye(8)[None] * np.ones((8, 1, 1)), np.eye(4) + np.eye(4, k=3) * 900), empty)
    refused(partial(call, exam["true"], region=empty), ValueError, "--region", empty)
    knowing = save(tmp_path / "knowing.nii.gz", np.asarray(nib.load(exam["true"]).dataobj), np.eye(4))
    inputs = {"Inputs": [{"File": "x.nii.gz", "Sha256": digest_voxels(exam["stack"])}]}
    (tmp_path / "knowing.json").write_text(json.dumps({"SuperResolution": inputs}))
    refused(lambda: judge(knowing, left_out=exam["stack"], output_dir=out), ValueError, knowing, exam["stack"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(120, 26), (26, 120)])
def test_labels_of_rows_and_columns_are_apart(shape):
    images = [(np.eye(*shape), False), (np.eye(*shape), False), (np.eye(*shape), True)] * 2
    names = [f"a_result_with_a_long_name_{i}_sr.nii.gz, correlation 0.812" for i in range(3)]
    titles = ["left out, slice 12", "predicted", "predicted - left out"] * 2
    figure = draw_differences("a stack", titles, dict.fromkeys(names, images), [1, 1, 1], 1)
    FigureCanvasAgg(figure).draw()
    labels = [panel.texts[-1].get_window_extent() for panel in figure.axes[:18:6]]
    assert all(below.y1 < above.y0 for above, below in itertools.pairwise(labels))
    columns = [panel.title.get_window_extent() for panel in figure.axes[:6]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(columns))


def test_the_interval_covers_the_mean_as_often_as_it_says_also_where_slices_are_alike():
    rng, hits = np.random.default_rng(0), {0.0: 0, 0.6: 0}
    for alike in hits:
        for _ in range(400):
            values = rng.normal(size=31)
            for i in range(1, 31):
                values[i] = alike * values[i - 1] + np.sqrt(1 - alike**2) * values[i]
            _, low, high = estimate_interval(np.append(values + 1, np.nan))
            hits[alike] += low < 1 < high
    assert hits[0.0] / 400 == pytest.approx(0.95, abs=0.03)
    assert hits[0.6] / 400 > 0.88
    assert np.isnan(estimate_interval(np.array([1.0, 2.0, np.nan]))[1])
