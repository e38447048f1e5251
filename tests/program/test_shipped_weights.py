"""Which shipped weights an evaluation of own weights is compared with."""

import numpy as np

from common.degradations import GaussianProfile, KSpaceTruncation
from common.program.bundles import BUNDLES
from common.program.shipped_weights import load_shipped_weights

from ..bundles import runs


def test_an_evaluation_gets_the_shipped_weights_that_fit_all_its_scans(tmp_path, capsys):
    """By scale, position of LR voxels and spacing; not for the shipped weights themselves."""
    fine, coarse = (
        {"hr": runs.save(tmp_path / f"{mm}.nii.gz", np.ones((8, 8, 8)), np.diag([mm, mm, mm, 1.0]))} for mm in (1, 3)
    )
    truncation = KSpaceTruncation((2, 2, 2))

    def load(data, degradation=truncation, checkpoint="own.pt"):
        return [*load_shipped_weights(data, degradation, "SI", checkpoint, "cpu")], capsys.readouterr().out

    assert load([fine]) == (["udean_window, shipped"], "")
    for data, degradation, why in (
        ([fine, coarse], truncation, "other voxel sizes"),
        ([fine], KSpaceTruncation((3, 3, 3)), "another scale"),
        ([fine], GaussianProfile((2, 2, 2)), "another scale"),
    ):
        rows, line = load(data, degradation)
        assert rows == [] and why in line and line.count("\n") == 1
    for checkpoint in (BUNDLES / "udean_window" / "models" / "model.pt", None):
        assert load([fine], checkpoint=checkpoint) == ([], "")
