"""What the bundles' tests share: a tiny cohort, and a bundle that was trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from . import runs


@pytest.fixture(params=runs.BUNDLES, scope="session")
def bundle(request) -> str:
    """Each bundle's name."""
    assert request.param in runs.TINY, f"tests/bundles/tiny/{request.param}.py is to hold what the tests must know"
    return request.param


@pytest.fixture
def tiny(bundle) -> runs.Tiny:
    """What the tests know of the bundle."""
    return runs.TINY[bundle]


@pytest.fixture(scope="session")
def cohort(bundle, tmp_path_factory) -> Path:
    """HR volumes of six subjects, stored in ways that differ, with guides on their grids and on others; a datalist."""
    folder, tiny = tmp_path_factory.mktemp(f"cohort_{bundle}"), runs.TINY[bundle]
    stored = (
        ((40, 44, 36), runs.AFFINE, np.float32, "RAS"),
        ((40, 44, 36), runs.AFFINE, np.int16, "PSR"),
        ((40, 44, 36), runs.OBLIQUE, np.float32, "RAS"),
        ((40, 44, 36), runs.AFFINE, np.float32, "LPS"),
        ((40, 44, 36), runs.OBLIQUE, np.int16, "SRA"),
        ((41, 44, 37), runs.AFFINE, np.int16, "LSA"),
    )
    entries = []
    for subject, (shape, affine, dtype, axes) in enumerate(stored):
        hr = runs.phantom(subject, shape)
        entries.append(tiny.save_hr(folder, subject, hr, affine, dtype=dtype, axes=axes))
        if tiny.guided and subject % 2:
            runs.save(entries[-1]["guide"], *runs.elsewhere(runs.guide_of(hr), affine), dtype)
    groups = {group: [entries[i] for i in subjects] for group, subjects in tiny.groups.items()}
    if "source" in groups:
        groups["source"] = [tiny.as_source(entry) for entry in groups["source"]]
    return runs.datalist(folder, **groups)


@pytest.fixture(scope="session")
def trained(bundle, cohort, tmp_path_factory) -> Path:
    """A folder in which the bundle's train.json has run, by the real command line."""
    folder = tmp_path_factory.mktemp(f"trained_{bundle}")
    done = runs.command(bundle, ["train"], folder, dataset_dir=cohort)
    assert done.returncode == 0, done.stderr
    return folder
