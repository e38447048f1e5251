"""What is carried to a machine without a network: wheels and label maps, their sizes, and how wheels are fetched.

Only the standard library is imported, as this runs before anything is installed.
"""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
WHEELS = ROOT / ".wheels"  # what is carried
LABELS = ROOT / "labels"  # label maps for release.json
SCANS = ROOT / "scans"  # real volumes for release.json
PYTHON = "3.12"  # of the machine with the GPU
MOST_MIB = 64  # that travel


def carried() -> list[str]:
    """Packages that the machine lacks, as constraints.txt pins them; preinstalled.txt names those that it has.

    nilearn has the tissue maps that heads are simulated from where no label maps are carried.
    """
    names = [
        "monai",
        "pytorch-ignite",
        "nibabel",
        "fire",
        "termcolor",
        "psutil",
        "pathspec",
        "bidsschematools",
        "acres",
        "click",
    ]
    names += [] if LABELS.is_dir() else ["nilearn"]
    versions = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    return [f"{name}=={versions[name]}" for name in names]


def pack(folder: Path, into: Path) -> None:
    """Write the label maps or volumes of a folder into one that is carried: 16 bits a voxel, well compressed."""
    import nibabel as nib
    import numpy as np

    into.mkdir(exist_ok=True)
    for path in sorted(folder.glob("*.nii*")):
        image: Any = nib.load(path)
        packed = nib.Nifti1Image(np.rint(image.dataobj).astype(np.int16), image.affine)
        (into / f"{path.name.split('.nii')[0]}.nii.gz").write_bytes(gzip.compress(packed.to_bytes(), 9, mtime=0))


def fetch() -> None:
    """Download the wheels into their folder, and nothing else may be there."""
    for path in WHEELS.glob("*.whl"):
        path.unlink()
    options = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--dest", str(WHEELS)]
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", *options, *carried()], check=True)


def report() -> None:
    """Print what travels, in MiB.

    Raises:
        SystemExit: a wheel is missing, or all is too large.
    """
    sizes = {path.name: path.stat().st_size for path in sorted(WHEELS.glob("*.whl"))}
    missing = [pin for pin in carried() if not any(name.startswith(_start(pin)) for name in sizes)]
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    sizes["files that git does not ignore"] = sum((ROOT / f).stat().st_size for f in files if (ROOT / f).is_file())
    sizes |= {data.name: sum(path.stat().st_size for path in data.glob("*")) for data in (LABELS, SCANS)}
    sizes["total"] = sum(sizes.values())
    for name, size in sizes.items():
        print(f"{size / 2**20:7.2f} MiB  {name}")
    if missing:
        raise SystemExit(f"error: no wheels of {', '.join(missing)} in {WHEELS.name}; run this with --fetch.")
    if sizes["total"] > MOST_MIB * 2**20:
        raise SystemExit(f"error: more than {MOST_MIB} MiB.")


def _start(pin: str) -> str:
    """How the name of a pinned package's wheel begins."""
    return "{}-{}-".format(*pin.replace("-", "_").split("=="))
