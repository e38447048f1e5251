"""Two bundles on a GPU that is simulated: no devices are mixed up."""

import monai.bundle
import pytest

from tests import simulated_cuda

from . import runs


def start(bundle, names, folder, **override):
    """Run configs as ``python -m monai.bundle run`` does, on the device that they choose."""
    settings = runs.overrides(bundle, names, folder, **override)
    settings.pop("device", None)
    files = runs.with_overlay(bundle, names, folder, settings)
    monai.bundle.run(config_file=files, logging_file=False, **settings)


def play(device, bundle, folder, data, scan):
    """In a process that has the device: train, stop, resume, and infer."""
    amp = {"train#trainer#amp": True, "dataset_dir": str(data)}
    start(bundle, ["train"], folder, **amp, **runs.TINY[bundle].lasting(1, 2))
    start(bundle, ["train"], folder, **amp, **runs.TINY[bundle].lasting(2, 2), resume=True)
    start(bundle, ["inference"], folder, **scan, **{"evaluator#amp": True})


@pytest.mark.parametrize("bundle", ["guided_rdn", "udean"], indirect=True)
def test_trainings_and_inference_mix_no_devices(bundle, tiny, cohort, tmp_path):
    scan = tiny.only(tiny.save_lr(tmp_path / "scan", "a", runs.phantom(9)))
    function = f"{__name__}:{play.__name__}"
    simulated_cuda.Run(tmp_path / "log.txt", function, bundle, tmp_path / "run", cohort, scan).finish()
