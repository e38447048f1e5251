"""SRCNN: the paper's count of weights, its form, and what it learns from."""

import json
import sys

import pytest
import torch

from common.degradations import GaussianProfile

from ..refused import has
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
def test_metrics_by_json(cohort, trained, tmp_path, monkeypatch):
    """One of MONAI and a function of one's own, in the printed table, the CSV and the box plots."""
    (tmp_path / "my_metrics.py").write_text(
        "def measure(sr, hr):\n    return -10 * (sr - hr).square().mean().log10()\n"
    )
    metrics = {
        "ms_ssim": {"_target_": "MultiScaleSSIMMetric", "spatial_dims": 3, "kernel_size": 3, "weights": [0.5, 0.5]},
        "too_large": {"_target_": "MultiScaleSSIMMetric", "spatial_dims": 3},
        "own": {
            "_target_": "common.metrics.Metric",
            "function": {"_target_": "my_metrics.measure", "_mode_": "callable"},
            "title": "my PSNR",
            "decimals": 1,
            "more_is_better": True,
        },
    }
    (tmp_path / "mine.json").write_text(json.dumps({"evaluate#report#metrics": metrics}))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ["train", "evaluate", str(tmp_path / "mine")]
    done = runs.command("srcnn", names, trained, [sys.executable], dataset_dir=cohort)
    assert done.returncode == 0, done.stderr
    has(done.stderr, "the metric too_large is left out for volumes of", "must be larger than")
    assert "SSIM  ms_ssim  too_large  my PSNR\n" in done.stdout and "\nmore is better: my PSNR\n" in done.stdout
    rows = runs.table(trained)
    assert {method for method, _ in rows} == {"cubic", "SRCNN"}
    for row in rows.values():
        assert float(row["own"]) == pytest.approx(float(row["psnr"]), abs=1e-3)
        assert 0.5 < float(row["ms_ssim"]) < 1


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
