"""MONAI's programs find in every train.json what they look for."""

import pytest
from monai.bundle import ConfigWorkflow
from monai.bundle.properties import TrainProperties
from monai.transforms import Compose
from monai.utils import set_determinism
from torch.utils.data import Dataset

from common.data import Group

from . import runs

# A player's losses are no metric of images, and a training makes no images to process.
WITHOUT = {"train_postprocessing", "train_key_metric"}


@pytest.mark.parametrize("bundle", runs.BUNDLES)
def test_every_property_of_a_training_is_there_and_is_what_it_is_called(bundle, tmp_path):
    """Also what is built of it, before any scan is read."""
    (path,) = runs.configs(bundle, "train")
    override = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out"), **runs.TINY[bundle].network}
    workflow = ConfigWorkflow(config_file=path, workflow_type="train", logging_file=False, **override)
    workflow.initialize()
    set_determinism(None)
    for known in TrainProperties.values():
        key, place = known["id"], known.get("refer_id")
        assert place is None or workflow.parser.get(place, f"@{key}") == f"@{key}"
    assert {name for name, known in TrainProperties.items() if known["id"] not in workflow.parser} == WITHOUT
    for name in ("train", "val"):
        dataset, data = (getattr(workflow, f"{name}_dataset{end}") for end in ("", "_data"))
        assert isinstance(dataset, Dataset) and isinstance(data, Group) and dataset.data is data
        assert isinstance(getattr(workflow, f"{name}_preprocessing"), Compose)
        assert dataset.transform is getattr(workflow, f"{name}_preprocessing")
    assert "psnr" in workflow.val_key_metric and not [*tmp_path.iterdir()]
