"""Bundles without training that make all contrasts of an exam: their losses, and exported."""

import itertools
import json
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.commands.export import export
from common.data import CoordinateLoader, MeasuredVoxels

from ..stacks.phantom import Phantom, grid
from . import runs
from .test_export import forget  # noqa: F401
from .test_stacks import applied

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
@pytest.mark.parametrize(("bundle", "options"), [("multi_contrast_inr", TINY), ("joint_tv", {})])
def test_exported_it_gives_the_same_and_is_verified(bundle, options, tmp_path, monkeypatch, forget):  # noqa: F811
    """An exam of two contrasts, in the repository and by the exported bundle alone; and the model zoo's checks."""
    for name, across, contrast in (("a_T1w", 2, 1), ("a_T2w", 0, -1)):
        shape, affine = grid(across)
        runs.save(tmp_path / "scans" / f"{name}.nii.gz", 1000 * Phantom(7, contrast).stack(shape, affine), affine)
    options = {**options, "dataset_dir": str(tmp_path / "scans"), "spacing": 2.0}
    applied(runs.ROOT, tmp_path, f"bundles/{bundle}/configs/inference.json", output_dir=tmp_path / "here", **options)
    export(str(runs.ROOT / "bundles" / bundle), str(tmp_path / "dist"))
    (folder,) = (path for path in (tmp_path / "dist").iterdir() if path.is_dir())
    applied(folder, tmp_path, "configs/inference.json", output_dir="there", **options)
    for name in ("a_T1w", "a_T2w"):
        here, there = (nib.load(Path(path) / f"{name}_sr.nii.gz") for path in (tmp_path / "here", folder / "there"))
        np.testing.assert_array_equal(here.get_fdata(), there.get_fdata())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(folder))
    files = {name: str(folder / f"configs/{name}.json") for name in ("metadata", "inference")}
    files = {"meta_file": files["metadata"], "config_file": files["inference"], "bundle_root": str(folder)}
    monai.bundle.verify_net_in_out(net_id="network_def", device="cpu", **files)
    parser = ConfigParser(json.loads(Path(files["config_file"]).read_text()))
    assert isinstance(torch.jit.script(parser.get_parsed_content("network_def")), torch.jit.ScriptModule)
    workflow = monai.bundle.create_workflow(
        workflow_type="inference", dataset_dir=options["dataset_dir"], logging_file=False, **files
    )
    assert workflow.check_properties() in (None, [])
