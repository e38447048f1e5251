"""SRCNN: the paper's count of weights, its form, and what it learns from."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from common.degradations import GaussianProfile

from . import runs

TINY = runs.TINY["srcnn"]


def test_count_of_weights():
    """8,032 without biases, which Dong et al. count for 9-1-5, and 57,184 for 9-5-5."""
    for names in (["train"], ["inference"], ["train", "paper"]):
        for kernels, count in (([9, 1, 5], 8_032), ([9, 5, 5], 57_184)):
            network = runs.content("srcnn", "network_def", *names, **{"network_def#body#kernels": kernels})
            assert sum(p.numel() for n, p in network.named_parameters() if n.endswith("weight")) == count


@pytest.mark.parametrize("factor", [2, 3])
def test_untrained_it_is_the_interpolation(factor):
    scale = [factor, factor, 1]
    offset = runs.content("srcnn", "degradation", "train", scale=scale).offset
    rows, columns = (factor * torch.arange(n) + start for n, start in zip((13, 10), offset[:2], strict=True))
    lr = (rows[:, None] + 2 * columns)[None, None, :, :, None]
    expected = (torch.arange(13.0 * factor)[:, None] + 2 * torch.arange(10.0 * factor))[None, None, :, :, None]
    inner = (..., slice(2 * factor, -2 * factor), slice(2 * factor, -2 * factor), slice(None))
    untrained, paper = (
        runs.content("srcnn", "network_def", *names, scale=scale)(lr) for names in (["train"], ["train", "paper"])
    )
    assert untrained.shape == paper.shape == expected.shape
    torch.testing.assert_close(untrained[inner], expected[inner], atol=1e-3, rtol=0)
    assert not torch.allclose(paper[inner], expected[inner], atol=1)


@runs.of("srcnn")
def test_paper(cohort, tmp_path):
    """The paper's form learns all of the image, by gradient descent with momentum, and is evaluated under its name."""
    optimizer = runs.content("srcnn", "players#srcnn#optimizer", "train", "paper", learning_rate=0.0001)
    (group,) = optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert (group["lr"], group["momentum"]) == (0.0001, 0.9)
    options = {"dataset_dir": str(cohort), "max_epochs": 4, "epoch_length": 20, "learning_rate": 0.01}
    runs.run("srcnn", ["train", "paper"], tmp_path, **options)
    losses = [line["srcnn/image/l2"] for line in runs.history(tmp_path) if "srcnn/image/l2" in line]
    assert len(losses) == 80 and sum(losses[-10:]) < sum(losses[:10]) / 2
    runs.run("srcnn", ["train", "paper", "evaluate"], tmp_path, **options)
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert list(summary) == ["cubic", "SRCNN, the paper's form"]
    weights = str(tmp_path / "models" / "model.json").removesuffix(".json")
    assert runs.content("srcnn", "network_def", "inference", weights).residual is False, "its weights say so"


@runs.of("srcnn")
def test_pairs(cohort, tmp_path):
    """Where a subject's LR is known it is that which is learned from, and elsewhere what the degradation makes."""
    entries, hr = runs.listed(cohort, TINY), runs.phantom(7)
    pair = TINY.save_hr(tmp_path / "hr", "a", hr)
    pair["lr"] = runs.save(
        tmp_path / "lr" / "sub-a_t1w.nii.gz", *runs.degrade(hr, runs.AFFINE, GaussianProfile((2, 2, 1), fwhm=0.5))
    )
    data = str(runs.datalist(tmp_path / "data", **{**entries, "source": [pair, entries["source"][0]]}))
    options = {**TINY.network, **TINY.training, "dataset_dir": data}
    known, made = runs.content("srcnn", "train#dataset", "train", **options)
    for item, degradation in ((known, GaussianProfile((2, 2, 1), fwhm=0.5)), (made, TINY.degradation)):
        expected = degradation(item["hr"])
        expected, found = (volume / volume.mean() for volume in (expected, item["lr"]))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    message = runs.fails("srcnn", ["train"], tmp_path / "run", dataset_dir=str(cohort), scale=[2, 1, 1])
    assert "scale is [2, 1, 1], expected [n, n, 1]" in message


@runs.of("srcnn")
def test_scores_on_the_scale_of_papers(cohort, tmp_path):
    """They are what numpy and scikit-image get from the files on disk, and the tables say on which scale they are."""
    hr = runs.phantom(3)
    hr[20, 20, 12:14] = 3 * hr.max()  # a vessel
    hr[..., -6:] = 0  # slices of air
    entry = TINY.save_hr(tmp_path / "hr", "a", hr, dtype=np.int16, axes="PSR")
    data = runs.datalist(tmp_path / "data", **{**runs.listed(cohort, TINY), "test": [entry]})
    options = {"data_range": "maximum", "score_over": "slices"}
    override = {f"evaluate#report#{key}": value for key, value in options.items()}
    override |= {**TINY.network, **TINY.training, "dataset_dir": data, "checkpoint": "$None"}
    done = runs.command("srcnn", ["train", "evaluate"], tmp_path, **override)
    assert done.returncode == 0, done.stderr
    assert "PSNR and SSIM with data_range maximum, score_over slices" in done.stdout
    row = runs.table(tmp_path)["SRCNN", TINY.case("a")]
    assert {key: row[key] for key in options} == options
    files = (entry["hr"], tmp_path / "out" / f"{TINY.case('a')}_sr.nii.gz")
    truth, result = (np.moveaxis(nib.load(path).get_fdata(), 1, -1) for path in files)  # stored as P, S, R
    air, peak = truth < 0.05 * np.quantile(truth, 0.999), truth.max()
    truth, result = truth / peak, result / peak
    counting = [z for z in range(truth.shape[-1]) if not air[..., z].mean() > 0.95]
    assert 20 < len(counting) <= truth.shape[-1] - 6
    settings = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
    ssim = [structural_similarity(truth[..., z], result[..., z], **settings)[1].mean() for z in counting]
    psnr = [-10 * np.log10(np.mean((truth[..., z] - result[..., z]) ** 2)) for z in counting]
    assert float(row["psnr"]) == pytest.approx(np.mean(psnr), abs=0.01)
    assert float(row["ssim"]) == pytest.approx(np.mean(ssim), abs=1e-4)
