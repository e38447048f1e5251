"""What the bundles' tests share: a tiny cohort, and a bundle that was trained on it."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from common.program.commands.export import export

from . import runs


@pytest.fixture(params=runs.BUNDLES, scope="session")
def bundle(request) -> str:
    """Each bundle's name."""
    tested = request.param in runs.TINY or request.param not in runs.BUNDLES
    assert tested, f"tests/bundles/tiny/{request.param}.py is to hold what the tests must know"
    return request.param


@pytest.fixture
def tiny(bundle) -> runs.Tiny:
    """What the tests know of the bundle."""
    return runs.TINY[bundle]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first of all workers which needs it has made; nobody changes it afterwards.

    Args:
        factory: of temporary folders.
        name: of the folder.
        make: fills the empty folder.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made_once"
    folder, done = shared / name, shared / f"{name}.done"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def cohort(bundle, tmp_path_factory) -> Path:
    """HR volumes of six subjects, stored in ways that differ, with guides on their grids and on others; a datalist."""
    tiny = runs.TINY[bundle]
    stored = (
        ((40, 44, 36), runs.AFFINE, np.float32, "RAS"),
        ((40, 44, 36), runs.AFFINE, np.int16, "PSR"),
        ((40, 44, 36), runs.OBLIQUE, np.float32, "RAS"),
        ((40, 44, 36), runs.AFFINE, np.float32, "LPS"),
        ((40, 44, 36), runs.OBLIQUE, np.int16, "SRA"),
        ((41, 44, 37), runs.AFFINE, np.int16, "LSA"),
    )

    def make(folder: Path) -> None:
        entries = []
        for subject, (shape, affine, dtype, axes) in enumerate(stored):
            hr = runs.phantom(subject, shape)
            entries.append(tiny.save_hr(folder, subject, hr, affine, dtype=dtype, axes=axes))
            if tiny.guided and subject % 2:
                runs.save(entries[-1]["guide"], *runs.elsewhere(runs.guide_of(hr), affine), dtype)
        groups = {group: [entries[i] for i in subjects] for group, subjects in tiny.groups.items()}
        if "source" in groups:
            groups["source"] = [tiny.as_source(entry) for entry in groups["source"]]
        runs.datalist(folder, **groups)

    return made_once(tmp_path_factory, f"cohort_{bundle}", make)


@pytest.fixture(scope="session")
def trained(bundle, cohort, tmp_path_factory) -> Path:
    """A copy of a folder in which the bundle's train.json has run, of srcnn by the real command line."""

    def make(folder: Path) -> None:
        if bundle == "srcnn":
            done = runs.command(bundle, ["train"], folder, [sys.executable], dataset_dir=cohort)
            assert done.returncode == 0, done.stderr
        else:
            runs.run(bundle, ["train"], folder, dataset_dir=str(cohort))

    made = made_once(tmp_path_factory, f"trained_{bundle}", make)
    # Of this worker's own, as tests look at what is new in it.
    return shutil.copytree(made, tmp_path_factory.mktemp(f"trained_{bundle}") / "run")


def version(bundle: str) -> str:
    return json.loads((runs.ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())["version"]


@pytest.fixture(scope="session")
def exported(bundle, tmp_path_factory) -> Path:
    """The folder of an exported bundle, out of its zip, where the repository is not on the path.

    It has the weights that ship, or else tiny ones drawn at random.
    """
    source = runs.ROOT / "bundles" / bundle

    def make(folder: Path) -> None:
        weights = None
        if bundle in runs.TINY and not (source / "models" / "model.pt").is_file():
            runs.save_weights(bundle, weights := folder / "weights" / "model.pt")
        export(str(source), str(folder), weights)
        shutil.unpack_archive(folder / f"{bundle}_v{version(bundle)}.zip", folder / "elsewhere")

    return made_once(tmp_path_factory, f"dist_{bundle}", make) / "elsewhere" / bundle


@pytest.fixture
def forget(monkeypatch) -> None:
    """Forget the modules of exported bundles, and their folders on the path."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if re.match(r"[a-z_]+_v\d", name)]:
        del sys.modules[name]
