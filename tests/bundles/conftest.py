"""What the bundles' tests share: a tiny cohort, and a bundle that was trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from . import runs


@pytest.fixture(params=runs.BUNDLES, scope="session")
def bundle(request) -> str:
    """Each bundle's name."""
    assert request.param in runs.NETWORK and request.param in runs.TRAINING, "runs.py needs this bundle's tiny sizes"
    return request.param


@pytest.fixture(scope="session")
def cohort(tmp_path_factory) -> Path:
    """HR volumes of six subjects, stored in ways that differ, and a dataset.json."""
    folder = tmp_path_factory.mktemp("cohort")
    stored = {
        "sub-0": ((40, 44, 36), runs.AFFINE, np.float32, "RAS"),
        "sub-1": ((40, 44, 36), runs.AFFINE, np.int16, "PSR"),
        "sub-2": ((40, 44, 36), runs.OBLIQUE, np.float32, "RAS"),
        "sub-3": ((40, 44, 36), runs.AFFINE, np.float32, "LPS"),
        "sub-4": ((40, 44, 36), runs.OBLIQUE, np.int16, "SRA"),
        "sub-5": ((41, 44, 37), runs.AFFINE, np.int16, "LSA"),
    }
    for seed, (name, (shape, affine, dtype, axes)) in enumerate(stored.items()):
        runs.save(folder / f"{name}_t1w.nii.gz", runs.phantom(seed, shape), affine, dtype, axes)
    files = [{"hr": folder / f"{name}_t1w.nii.gz"} for name in stored]
    return runs.datalist(folder, source=files[:2], target=files[2:4], validation=files[4:5], test=files[5:])


@pytest.fixture(scope="session")
def trained(bundle, cohort, tmp_path_factory) -> Path:
    """A folder in which the bundle's train.json has run, by the real command line."""
    folder = tmp_path_factory.mktemp(f"trained_{bundle}")
    done = runs.command(bundle, ["train"], folder, dataset_dir=cohort)
    assert done.returncode == 0, done.stderr
    return folder
