"""Bundles that are applied to exams and not trained: what they minimise, and a run by themselves."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.data import CoordinateLoader, MeasuredVoxels

from .. import forked
from . import runs

TINY = {"iterations": 3, "batch_size": 16, "features": 16, "layers": 1, "frequencies": 8}


def test_the_network_of_coordinates_minimises_the_error_of_slices():
    """McGinnis et al. 2023, section 2, with the mean over the slice in the place of the value at its centre."""
    parser = ConfigParser()
    parser.read_config(runs.configs("multi_contrast_inr", "inference"))
    parser.update(TINY)
    graph, players = (parser.get_parsed_content(name) for name in ("graph", "players"))
    (player,) = (make() for make in players.values())
    graph = graph()
    voxels = [
        [MeasuredVoxels(20 * torch.randn(50, 3), torch.rand(50), torch.ones(50), torch.tensor([0, 0, 2.0]))]
        for _ in range(2)
    ]
    network = graph.networks["network"]
    for batch in itertools.islice(CoordinateLoader(voxels, 16, 4), 3):
        values = graph(batch, ["stacks"])
        expected = torch.stack(
            [
                (network(points)[:, contrast].mean() - value).square()
                for contrast in range(2)
                for points, value in zip(batch["coordinates"][contrast], batch["values"][contrast], strict=True)
            ]
        ).mean()
        torch.testing.assert_close(player.losses(values)[0], expected)


@pytest.mark.slow
def test_stacks_by_itself(tmp_path):
    """Without a folder it simulates an exam of three stacks, of which it makes one volume."""
    words = ["--config_file", *runs.configs("stacks", "inference"), "--output_dir", tmp_path, "--adapt_iterations", 0]
    done = forked.command(["monai.bundle", "run", *words], runs.ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    result = nib.load(tmp_path / "simulated_t1w_sr.nii.gz")
    (true,) = tmp_path.rglob("hr/simulated_t1w.nii.gz")
    true = nib.load(true)
    size = tuple(slice(n) for n in np.minimum(result.shape, true.shape))
    hr = true.get_fdata()[size]
    assert -10 * np.log10(np.mean((result.get_fdata()[size] - hr) ** 2) / np.percentile(hr, 99.9) ** 2) > 30
