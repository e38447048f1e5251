"""``judge --repeated``: what two results add, and whether it repeats."""

import csv

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from common.__main__ import main
from common.degradations import GaussianProfile
from common.geometry.rigid import find_half_way
from common.lab.judge.repeated import select_band
from common.program.commands.judge import judge

from ...refused import refused
from ...stacks.phantom import grid, moved, save
from .test_left_out import make_head

FACTORS = (1, 1, 4)
MOTION = moved(np.array([1.3, -0.6, 0.8, 2.0, -1.0, 3.0]))


class Detail:
    """Waves beyond what slices of 4 mm can hold, at places that move with the head."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.waves = rng.uniform([-0.5, -0.5, 1.1], [0.5, 0.5, 1.5], (30, 3))
        self.phases = rng.uniform(0, 2 * np.pi, 30)

    def on(self, shape, affine, motion) -> np.ndarray:
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        places = np.linalg.inv(motion) @ affine
        return np.cos((index @ places[:3, :3].T + places[:3, 3]) @ self.waves.T + self.phases).sum(-1) / 30


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    """Two scans of a head that moved, with noise of their own, and of each results that add the same or another."""
    folder, head = tmp_path_factory.mktemp("visits"), make_head()
    shape, affine = grid(2, thick=1)
    degradation = GaussianProfile(FACTORS)
    files = {}
    for i, motion in enumerate((np.eye(4), MOTION)):
        hr = head.on(shape, affine, motion)
        gain = 1 + 0.5 * i
        scan = degradation(torch.from_numpy(hr)[None, None])[0, 0].numpy()
        scan = scan + np.random.default_rng(i).normal(0, 0.01, scan.shape)
        files[f"scan{i}"] = save(folder / f"scan{i}.nii.gz", gain * scan, degradation.compute_lr_affine(affine))
        base = select_band(hr, FACTORS)
        for name, seed in (("same", 0), ("own", i)):
            sharp = base + 0.3 * Detail(seed).on(shape, affine, motion) * (hr > 0.05)
            files[f"{name}{i}"] = save(folder / f"{name}{i}.nii.gz", gain * sharp, affine)
    texture = gaussian_filter(np.random.default_rng(2).normal(size=(64, 64, 16)), (2, 2, 0.5))
    files["other"] = save(folder / "other.nii.gz", 1 + texture / np.ptp(texture), degradation.compute_lr_affine(affine))
    files["other_sr"] = save(folder / "other_sr.nii.gz", np.repeat(1 + texture / np.ptp(texture), 4, axis=2), affine)
    return files


def read_rows(folder) -> dict[str, dict[str, float]]:
    with (folder / "repeated.csv").open(newline="") as file:
        return {
            row["region"]: {
                k: float(v) for k, v in row.items() if k not in ("person", "result", "method", "region") and v
            }
            for row in csv.DictReader(file)
        }


def test_detail_that_repeats_is_told_from_detail_that_does_not(visits, tmp_path):
    found = {}
    for kind in ("same", "own"):
        out = tmp_path / kind
        scans = f"{visits['scan0']},{visits['scan1']}"
        main(["judge", visits[f"{kind}0"], visits[f"{kind}1"], "--repeated", scans, "--output_dir", str(out)])
        found[kind] = read_rows(out)["all but air"]
        assert list(out.glob("*_repeated.png"))
    same, own = found["same"], found["own"]
    assert same["added_correlation"] > 0.95
    assert abs(own["added_correlation"]) < 0.1
    assert same["factor"] == pytest.approx(1 / 1.5, rel=0.01)
    assert same["turn"] == pytest.approx(np.sqrt(14), abs=0.2)
    assert same["ratio"] < 0.8 * own["ratio"] and own["ratio"] > 1
    assert own["ratio_in_band"] < 1


def test_files_of_others_or_in_another_order_are_refused_by_name(visits, tmp_path):
    own = visits["same0"], visits["same1"]
    out = str(tmp_path / "out")
    for results, scans, words in (
        (own, ("scan0",), ("--repeated", "1 scans")),
        (own[:1], ("scan0", "scan1"), ("--repeated", "1 results")),
        ((own[0], visits["other_sr"]), ("scan0", "other"), ("--repeated", visits["scan0"], visits["other"])),
        (own, ("scan0", "other"), ("--repeated", visits["other"], own[1])),
        (own, ("same0", "other_sr"), ("--repeated",)),
    ):
        names = ",".join(visits[name] for name in scans)
        refused(lambda r=results, n=names: judge(*r, repeated=n, output_dir=out), ValueError, *words)
    assert not (tmp_path / "out").exists()


def test_half_way_both_volumes_are_moved_by_as_much(tmp_path):
    affine = np.diag([0.8, 0.8, 0.8, 1.0])
    second = affine.copy()
    second[:3, 3] = [7.3, -4.1, 12.2]  # another field of view
    first_places, second_places = find_half_way(affine, second, (40, 40, 40), MOTION)
    np.testing.assert_allclose(affine @ first_places, MOTION @ second @ second_places, atol=1e-6)
    middle = np.array([19.5, 19.5, 19.5, 1])
    offsets = [(places @ middle)[:3] for places in (first_places, second_places)]
    beside = [each - np.rint(each - middle[:3]) - middle[:3] for each in offsets]
    np.testing.assert_allclose(beside[0], -beside[1], atol=0.02)
    np.testing.assert_allclose(first_places[:3, :3], np.linalg.inv(second_places[:3, :3]), atol=1e-6)


def test_a_band_is_kept_and_what_is_beyond_is_not():
    volume = np.random.default_rng(0).normal(size=(12, 10, 16)).astype(np.float32)
    band = select_band(volume, (1, 2, 4))
    np.testing.assert_allclose(select_band(band, (1, 2, 4)), band, atol=1e-5)
    np.testing.assert_allclose(select_band(volume, (1, 1, 1)), volume, atol=1e-5)
    z = np.arange(16) + 0.5
    slow, fast = (np.broadcast_to(np.cos(np.pi * k * z / 16), volume.shape) for k in (3, 5))
    np.testing.assert_allclose(select_band(slow + fast, (1, 1, 4)), slow, atol=1e-5)
