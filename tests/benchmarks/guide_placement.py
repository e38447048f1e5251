"""How clearly a guide that is off its scan is told from one that lies on it.

    python -m tests.benchmarks.guide_placement --pairs "T2W.nii.gz,T1W.nii.gz FLAIR.nii.gz,T1W.nii.gz"

Each pair, which must lie on each other, is put off by known motions; the scan is first made LR by 2 in plane.
"""

from __future__ import annotations

import fire
import numpy as np
import torch
from nibabel.affines import apply_affine, from_matvec
from scipy.spatial.transform import Rotation

from common.degradations import BlockAverage
from common.transforms import LoadScand, misplacement
from common.transforms.scan.volume import with_meta

# Degrees about the three axes, and mm along them.
MOTIONS = [
    ((0, 0, 0), (0, 0, 0)),
    ((0, 0, 0), (0.6, 0, 0)),
    ((0, 0, 0), (1, 1, 0)),
    ((0, 0, 0), (2, 0, 0)),
    ((0, 0, 0), (0, 0, 2)),
    ((2, 0, 0), (0, 0, 0)),
    ((5, 4, -6), (6, 5, -6)),
    ((9, 0, 0), (0, 10, 0)),
]


def main(pairs: str, slice_axis: str = "SI") -> None:
    """Print, for each pair and motion, the gain by the best step of 1 and of 2 mm or degrees, in %."""
    degradation = BlockAverage((2, 2, 1))
    load = LoadScand(["hr", "guide"], slice_axis=slice_axis)
    print(f"{'scan':28s} {'degrees':>12s} {'mm':>12s} {'steps of 1':>11s} {'steps of 2':>11s}  misplaced")
    for pair in pairs.split():
        hr, guide = pair.split(",")
        volumes = load({"hr": hr, "guide": guide})
        hr = volumes["hr"][:, : volumes["hr"].shape[1] // 2 * 2, : volumes["hr"].shape[2] // 2 * 2]
        lr = with_meta(degradation(hr.as_tensor()), degradation.lr_affine(hr.affine), {})
        centre = apply_affine(np.asarray(lr.affine), (np.array(lr.shape[1:]) - 1) / 2)
        for degrees, mm in MOTIONS:
            turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
            motion = from_matvec(turn, centre - turn @ centre + mm)
            moved = with_meta(volumes["guide"].as_tensor(), torch.as_tensor(motion) @ volumes["guide"].affine, {})
            gains = [100 * misplacement(lr, moved, steps=(step,))["gain"] for step in (1.0, 2.0)]
            told = misplacement(lr, moved)["misplaced"]
            name = pair.split(",")[0].rpartition("/")[2]
            print(f"{name:28.28s} {degrees!s:>12s} {mm!s:>12s} {gains[0]:11.1f} {gains[1]:11.1f}  {told}", flush=True)


if __name__ == "__main__":
    fire.Fire(main)
