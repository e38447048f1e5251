"""UniRes, the authors' own program for joint total variation (Brudfors et al. 2018, 2019), in a Python of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

# The scans are registered and their profile is known, so the peer is told both. Other settings are its defaults.
_DRIVER = """
import json, sys
import torch
from unires.run import preproc
from unires.struct import settings
scans, folder, spacing = json.loads(sys.argv[1])
torch.set_num_threads(1)
chosen = settings()
chosen.device, chosen.dir_out, chosen.vx = "cpu", folder, spacing
chosen.do_coreg, chosen.profile_tp = False, 2
preproc(scans, chosen)
"""


def run_unires(python: str, scans: Sequence[Path | str], output_dir: Path | str, spacing: float) -> list[Path] | str:
    """Super-resolve the contrasts of one exam together.

    Args:
        python: a Python that has UniRes and nitorch.
        scans: NIfTI files, one for each contrast, whose slices have a Gaussian profile.
        output_dir: where UniRes writes its results.
        spacing: of the resulting cubes in mm.

    Returns:
        The results in the order of the scans, or the reason why there are none.
    """
    if subprocess.run([python, "-c", "import unires.run"], capture_output=True).returncode:
        return f"{python} has no UniRes: install github.com/brudfors/UniRes and the nitorch that its setup.py names"
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    told = json.dumps([[str(scan) for scan in scans], str(output_dir), spacing])
    done = subprocess.run([python, "-c", _DRIVER, told], capture_output=True, text=True)
    results = [Path(output_dir, f"u_{Path(scan).name}") for scan in scans]
    if done.returncode or not all(result.is_file() for result in results):
        return (done.stderr.strip().splitlines() or ["it wrote no result"])[-1]
    return results
