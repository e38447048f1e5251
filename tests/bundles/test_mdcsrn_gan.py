"""mDCSRN-GAN: its size, when its critic is heard, and what it cannot do."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser

from . import runs

mdcsrn_gan = pytest.mark.parametrize("bundle", ["mdcsrn_gan"], indirect=True, scope="session")


def content(key, *names, **override):
    """What an entry of the merged configs is built to."""
    parser = ConfigParser()
    parser.read_config(runs.configs("mdcsrn_gan", *names))
    parser.update(override)
    return parser.get_parsed_content(key)


def test_layers():
    """Chen et al., MICCAI 2018: b4u4 with 16 channels a unit, 0.41 M weights where the kernels are 3-D."""
    for name in ("train", "inference"):
        body = content("network_def", name).body
        convolutions = [m for m in body.modules() if isinstance(m, torch.nn.Conv2d)]
        assert sum(c.weight.numel() * c.kernel_size[0] for c in convolutions) == 409_856
        assert [c.in_channels for c in body.compressors] == [128, 224, 320]
        assert {c.out_channels for c in body.compressors} == {body.head.out_channels} == {32}
        assert (body.tail.in_channels, body.tail.kernel_size) == (416, (1, 1))


@mdcsrn_gan
def test_pretraining(cohort, tmp_path):
    """Without pretraining the critic is heard from the first iteration, with it only afterwards; continued as well."""
    options = {"dataset_dir": str(cohort), "max_epochs": 2, "epoch_length": 2}
    totals = {}
    for pretraining in (0, 2):
        folder = tmp_path / str(pretraining)
        runs.run("mdcsrn_gan", ["train"], folder, pretraining=pretraining, lambda_gan=100.0, **options)
        totals[pretraining] = [
            abs(line["generator/total"] - line["generator/image/l1"]) > 1e-6
            for line in runs.history(folder)
            if "generator/total" in line
        ]
    assert totals == {0: [True] * 4, 2: [False, False, True, True]}
    runs.run(
        "mdcsrn_gan", ["train"], tmp_path / "parts", pretraining=2, lambda_gan=100.0, **{**options, "max_epochs": 1}
    )
    runs.run("mdcsrn_gan", ["train"], tmp_path / "parts", pretraining=2, lambda_gan=100.0, resume=True, **options)
    whole, parts = (
        torch.load(tmp_path / name / "models" / "training_state.pt", weights_only=True)["graph"]
        for name in ("2", "parts")
    )
    assert runs.same(whole, parts)
    message = runs.fails("mdcsrn_gan", ["train"], tmp_path / "compiled", **{**options, "compile": True})
    assert "torch.compile cannot take the gradient of a gradient" in message
