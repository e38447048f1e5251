"""Write the volumes of the people of other scanners that the queue evaluates: five, and twelve of ds002748.

    python -m common.lab.queue.others --clones CLONES --output_dir OTHERS

CLONES/OWNER+NAME/repo is a git clone, with or without a work tree, of https://github.com/OWNER/NAME. Sources and
licences: bundles/udean_window/docs/people_sources.csv. The twelve are every sixth person, cut to the brain.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

from ...program.dicom.volume_or_series import open_volume
from .clones import check_clones, extract_files

PEOPLE = {
    "sag_anon": ("FNNDSC+SAG-anon", "."),
    "trio_b17": ("CBICA+NiChart_Project", "test_data/dicoms/trio_b17/t1_MPRAGEcr_noGRAPPA_19"),
    "cfireants": ("neurolabusc+cfireants", "validate/medium/t1_brain.nii.gz"),
    "neurogister": ("scilus+neurogister", "data/t1.nii.gz"),
    "mr_gd": ("niivue+niivue-demo-images", "MR_Gd.nii.gz"),
} | {
    f"ds002748_{n:02}": ("aaronsossin+DepressionMRI_AI", f"sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz")
    for n in range(6, 73, 6)
}
"""By person: the clone, and the file or DICOM folder in it."""


MARGIN = 8  # voxels of air that stay around a brain


def cut_air(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Cut off the air around a brain."""
    inside = np.argwhere(np.asanyarray(image.dataobj) > 0)
    first = np.maximum(inside.min(axis=0) - MARGIN, 0)
    return image.slicer[tuple(slice(a, b) for a, b in zip(first, inside.max(axis=0) + MARGIN + 1, strict=True))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clones", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    options = parser.parse_args()
    try:
        check_clones(options.clones, [name for name, _ in PEOPLE.values()])
    except FileNotFoundError as error:
        parser.error(str(error))
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for person, (clone, name) in PEOPLE.items():
        with extract_files(options.clones, clone, name) as path:
            image = open_volume(path, str(path)) if path.is_dir() else nib.load(path)
            if person.startswith("ds002748"):
                image = cut_air(image)
            nib.save(image, options.output_dir / f"{person}.nii.gz")
        print(f"{person}: {image.shape[0]}x{image.shape[1]}x{image.shape[2]} voxels")


if __name__ == "__main__":
    main()
