"""Scores against HR, through the command, on volumes whose errors are known."""

import csv
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.cmdline.roi import main as run_roi
from scipy.ndimage import gaussian_filter
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from common.__main__ import main
from common.program.volume import Volume
from tests.refused import refused
from tests.transforms.grids import stored_as

AFFINE = np.array([[0, 0.9, 0.1, 3], [-1, 0, 0, 5], [0, -0.1, 1, 7], [0, 0, 0, 1.0]])


def save(path: Path, voxels: np.ndarray, step: int = 1) -> str:
    affine = AFFINE @ np.diag([1, 1, step, 1])
    affine[:3, 3] += AFFINE[:3, 2] * (step - 1) / 2
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), path)
    return str(path)


def make_person(folder: Path, seed: int) -> dict[str, str]:
    """HR in [0, 1], the scan of slices of two, and a result with noise."""
    rng = np.random.default_rng(seed)
    hr = np.zeros((20, 22, 24))
    hr[3:17, 4:18, 2:22] = 1 + gaussian_filter(8 * rng.standard_normal((14, 14, 20)), 2)
    hr = (hr / hr.max()).clip(0, 1)
    return {
        "hr": save(folder / f"hr{seed}.nii.gz", hr),
        "scan": save(folder / f"scan{seed}.nii.gz", hr.reshape(20, 22, 12, 2).mean(3), 2),
        "result": save(folder / f"a{seed}_sr.nii.gz", hr + 0.05 * rng.standard_normal(hr.shape)),
        "region": save(folder / f"mask{seed}.nii.gz", hr > 0.1),
    }


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as table:
        return list(csv.DictReader(table))


def numbers(row: dict[str, str], *keys: str) -> list[float]:
    return [float(row[key]) for key in keys]


def test_scores_of_one_person(tmp_path, capsys):
    """Against scikit-image: 1 is HR's 99.9th percentile. A factor on the result is its factor."""
    files = make_person(tmp_path, 0)
    hr = nib.load(files["hr"]).get_fdata(dtype=np.float32)
    files["result"] = save(tmp_path / "twice_sr.nii.gz", 2 * hr)
    words = [
        "judge",
        files["result"],
        "--hr",
        files["hr"],
        "--scan",
        files["scan"],
        "--output_dir",
        str(tmp_path / "o"),
    ]
    main(words)
    cubic, twice = read(tmp_path / "o" / "scores.csv")
    assert (cubic["result"], twice["method"], "person" in twice) == ("cubic", "result 1", True)
    top = np.quantile(hr, 0.999)
    sr, truth = ((volume / top).clip(0, 1) for volume in (2 * hr, hr))
    options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 1, "full": True}
    score, local = structural_similarity(truth, sr, **options)
    expected = [peak_signal_noise_ratio(truth, sr), score, normalized_root_mse(truth, sr)]
    assert numbers(twice, "psnr", "ssim", "nrmse") == pytest.approx(expected, rel=1e-3)
    assert numbers(twice, "factor") == pytest.approx([0.5])
    assert abs(float(cubic["factor"]) - 1) < 0.02
    # A mask of one's own, on another grid.
    mask = np.zeros((20, 22, 12))
    mask[6:12, 6:12, 4:8] = 1
    main([*words, "--region", save(tmp_path / "mask.nii.gz", mask, 2), "--overwrite"])
    row = read(tmp_path / "o" / "scores.csv")[1]
    within = (slice(6, 12), slice(6, 12), slice(8, 16))
    expected = [
        peak_signal_noise_ratio(truth[within], sr[within]),
        local[within].mean(),
        normalized_root_mse(truth[within], sr[within]),
        6 * 6 * 8 / hr.size,
    ]
    found = numbers(row, "psnr_masked", "ssim_masked", "nrmse_masked", "masked")
    assert found == pytest.approx(expected, rel=1e-3)
    assert row["psnr"] == twice["psnr"]


@pytest.mark.parametrize(("gain", "offset"), [(10, 0), (3, -1)])
def test_hr_in_other_units(tmp_path, capsys, gain, offset):
    """It is brought to those of the scan: scores are the same, and the first line and the verdict say so."""
    files = make_person(tmp_path, 0)
    hr = nib.load(files["hr"]).get_fdata(dtype=np.float32)
    scores, names = [], {"same": files["hr"], "other": save(tmp_path / "other.nii.gz", gain * hr + offset)}
    for name, file in names.items():
        words = ["judge", files["result"], "--hr", file, "--output_dir", str(tmp_path / name)]
        main([*words, "--scan", files["scan"]])
        scores += [numbers(row, "psnr", "ssim", "factor") for row in read(tmp_path / name / "scores.csv")]
        said = f"--hr {file}: HR has other units than the scan, gain {gain}"
        assert (said in capsys.readouterr().out.split("\n")[0]) == (name == "other")
    np.testing.assert_allclose(scores[2:], scores[:2], rtol=0.01)
    assert f"HR has other units than the scan, gain {gain}" in (tmp_path / "other" / "verdict.csv").read_text()
    main([*words, "--overwrite"])
    assert "give --scan" in capsys.readouterr().err


@pytest.mark.parametrize("codes", ["LPS", "IRP"])
def test_another_order_of_axes_is_the_same_volume(tmp_path, codes):
    """Of the result, HR, its interval and label maps, as ITK and others write them."""
    files, tables = make_person(tmp_path, 0), []
    width = np.random.default_rng(1).random(nib.load(files["result"]).shape)
    files["interval"] = save(tmp_path / "interval.nii.gz", 0.1 * width)
    labels = {name: save(tmp_path / f"{name}_labels.nii.gz", nib.load(files["region"]).get_fdata()) for name in "ab"}
    files |= {"hr": str(Path(files["hr"]).rename(tmp_path / "a.nii.gz"))}
    files |= {"result": str(Path(files["result"]).rename(tmp_path / "b.nii.gz"))}
    for turned in (False, True):
        for file in (files["result"], files["hr"], files["interval"], *labels.values()) if turned else ():
            nib.save(stored_as(nib.as_closest_canonical(nib.load(file)), codes), file)
        words = [word for name in ("scan", "hr", "interval") for word in (f"--{name}", files[name])]
        words += ["--labels", str(tmp_path / "{name}_labels.nii.gz"), "--output_dir", str(tmp_path / f"o{turned}")]
        main(["judge", files["result"], *words])
        tables.append({path.name: path.read_text() for path in (tmp_path / f"o{turned}").glob("*.csv")})
    assert tables[0].keys() >= {"scores.csv", "added.csv", "anatomy.csv", "interval.csv"}
    assert tables[0] == tables[1]


def test_what_has_four_axes_is_refused_with_a_command(tmp_path):
    """The command takes out a volume."""
    files = make_person(tmp_path, 0)
    hr = nib.load(files["hr"])
    nib.save(nib.Nifti1Image(np.stack([hr.get_fdata()] * 2, 3), hr.affine), tmp_path / "two.nii.gz")
    words = ["judge", files["result"], "--scan", files["scan"], "--output_dir", str(tmp_path / "o"), "--hr"]
    said = refused(lambda: main([*words, str(tmp_path / "two.nii.gz")]), SystemExit, "(20, 22, 24, 2)")
    command = said[said.index("nib-roi ") :].strip(".\n").replace("VOLUME", str(tmp_path / "one"))
    run_roi(shlex.split(command)[1:])
    main([*words, str(tmp_path / "one.nii.gz")])


def test_scores_over_people(tmp_path):
    people = [make_person(tmp_path, seed) for seed in (0, 1)]
    lines = [",".join(person[key] for key in ("result", "scan", "hr", "region")) for person in people]
    table = tmp_path / "cases.csv"
    table.write_text("person,results,scan,hr,region\n" + "".join(f"p{i},{line}\n" for i, line in enumerate(lines)))
    main(["judge", "--cases", str(table), "--output_dir", str(tmp_path / "o")])
    rows = read(tmp_path / "o" / "scores.csv")
    assert [row["person"] for row in rows] == ["p0", "p0", "p1", "p1", *2 * ["mean of 2", "SD of 2"]]
    for method in ("cubic", "result 1"):
        first, second, both, _ = (float(row["psnr"]) for row in rows if row["method"] == method)
        assert both == pytest.approx((first + second) / 2, rel=1e-3)


def test_a_mask_on_the_same_grid_keeps_its_borders(tmp_path):
    """A grid against itself differs by rounding; voxels at its ends lie on it all the same."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        affine = np.eye(4)
        affine[:3] += 0.2 * rng.standard_normal((3, 4)) + [0, 0, 0, 60]
        volume = Volume("a", np.ones((6, 7, 8), np.float32), affine, {})
        assert volume.sample_mask(volume, "--region").all()
