"""Bundles that are applied to exams and not trained: what they minimise, and exported."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.commands.export import export
from common.data import CoordinateLoader, MeasuredVoxels

from ..stacks.phantom import Phantom, grid
from . import runs
from .test_export import at, forget, verify  # noqa: F401

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


def applied(folder: Path, scratch: Path, config: str, **options: object) -> None:
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    done = at(folder, scratch, "run", "--config_file", config, *words)
    assert done.returncode == 0, done.stderr


# Scans, with the axis across their slices and their contrast.
EXAM, STACKS = {"a_T1w": (2, 1), "a_T2w": (0, -1)}, {"t1_ax": (2, 1), "t1_sag": (0, 1)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "scans", "options", "results"),
    [
        ("multi_contrast_inr", EXAM, {**TINY, "spacing": 2.0}, ["a_T1w", "a_T2w"]),
        ("joint_tv", EXAM, {"spacing": 2.0}, ["a_T1w", "a_T2w"]),
        ("stacks", STACKS, {"adapt_iterations": 0}, ["t1"]),
    ],
)
def test_exported_it_gives_the_same_and_is_verified(bundle, scans, options, results, tmp_path, monkeypatch, forget):  # noqa: F811
    """In the repository and by the exported bundle alone; and the model zoo's checks."""
    for name, (across, contrast) in scans.items():
        shape, affine = grid(across)
        runs.save(tmp_path / "scans" / f"{name}.nii.gz", 1000 * Phantom(7, contrast).stack(shape, affine), affine)
    options = {**options, "dataset_dir": str(tmp_path / "scans")}
    applied(runs.ROOT, tmp_path, f"bundles/{bundle}/configs/inference.json", output_dir=tmp_path / "here", **options)
    export(str(runs.ROOT / "bundles" / bundle), str(tmp_path / "dist"))
    (folder,) = (path for path in (tmp_path / "dist").iterdir() if path.is_dir())
    applied(folder, tmp_path, "configs/inference.json", output_dir="there", **options)
    for name in results:
        here, there = (nib.load(path / f"{name}_sr.nii.gz") for path in (tmp_path / "here", folder / "there"))
        assert here.header == there.header
        np.testing.assert_array_equal(here.get_fdata(), there.get_fdata())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(folder))
    verify(folder, tmp_path / "scans")


@pytest.mark.slow
def test_stacks_by_itself(tmp_path):
    """Without a folder it simulates an exam of three stacks, of which it makes one volume."""
    applied(runs.ROOT, tmp_path, "bundles/stacks/configs/inference.json", output_dir=tmp_path, adapt_iterations=0)
    result = nib.load(tmp_path / "simulated_t1w_sr.nii.gz")
    (true,) = tmp_path.rglob("hr/simulated_t1w.nii.gz")
    true = nib.load(true)
    size = tuple(slice(n) for n in np.minimum(result.shape, true.shape))
    hr = true.get_fdata()[size]
    assert -10 * np.log10(np.mean((result.get_fdata()[size] - hr) ** 2) / np.percentile(hr, 99.9) ** 2) > 30
