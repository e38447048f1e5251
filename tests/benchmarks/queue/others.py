"""Write the volumes of the five people of other scanners that the queue evaluates.

    python -m tests.benchmarks.queue.others --clones CLONES --output_dir OTHERS

CLONES/OWNER+NAME/repo is a git clone, with or without a work tree, of https://github.com/OWNER/NAME. Sources and
licences: bundles/udean_window/docs/people_sources.csv.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import nibabel as nib

from common.io.dicom import open_series

PEOPLE = {
    "sag_anon": ("FNNDSC+SAG-anon", "."),
    "trio_b17": ("CBICA+NiChart_Project", "test_data/dicoms/trio_b17/t1_MPRAGEcr_noGRAPPA_19"),
    "cfireants": ("neurolabusc+cfireants", "validate/medium/t1_brain.nii.gz"),
    "neurogister": ("scilus+neurogister", "data/t1.nii.gz"),
    "mr_gd": ("niivue+niivue-demo-images", "MR_Gd.nii.gz"),
}
"""By person: the clone, and the file or DICOM folder in it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clones", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    options = parser.parse_args()
    if missing := [name for name, _ in PEOPLE.values() if not (options.clones / name / "repo").is_dir()]:
        parser.error(f"--clones {options.clones}: no folder {', '.join(f'{name}/repo' for name in missing)}")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for person, (clone, name) in PEOPLE.items():
        with tempfile.TemporaryDirectory() as folder:
            repository = options.clones / clone / "repo"
            archive = subprocess.run(
                ["git", "-C", repository, "archive", "HEAD", name], check=True, stdout=subprocess.PIPE
            )
            subprocess.run(["tar", "-x", "-C", folder], check=True, input=archive.stdout)
            path = Path(folder) / name
            image = open_series(path) if path.is_dir() else nib.load(path)
            nib.save(image, options.output_dir / f"{person}.nii.gz")
        print(f"{person}: {image.shape[0]}x{image.shape[1]}x{image.shape[2]} voxels")


if __name__ == "__main__":
    main()
