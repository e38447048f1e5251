"""Write the guides of Iwamoto's tables: each person's T1w, whose affine is moved onto the T2w by rigid registration.

    python -m common.lab.queue.guides --people PEOPLE --output_dir GUIDES

The files lack the scanner's positions: T1w lie up to 25 mm and 27 degrees off. Voxels stay as they are. A person whose
T1w cannot be registered gets no guide.
"""

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np

from ...geometry.registration.contrasts import find_misplacement, register_contrasts
from ...transforms.scan.load import LoadScand
from ...transforms.scan.volume import attach_meta


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for path in sorted(options.people.glob("*_t2w.nii.gz")):
        guide = path.with_name(path.name.replace("_t2w", "_t1w"))
        person = path.name.removesuffix("_t2w.nii.gz")
        scans = LoadScand(keys=["scan", "guide"], ordered=False)({"scan": str(path), "guide": str(guide)})
        affine, quality = register_contrasts(scans["scan"], scans["guide"])
        moved = attach_meta(scans["guide"].as_tensor(), affine, scans["guide"].meta)
        if find_misplacement(scans["scan"], moved, steps=(2.0,))["misplaced"]:
            print(f"{person}: not registered, no guide")
            continue
        image = nib.load(guide)
        change = affine @ np.linalg.inv(np.asarray(scans["guide"].affine))
        nib.save(nib.Nifti1Image(image.dataobj, change @ image.affine), options.output_dir / f"{person}_guide.nii.gz")
        distance, angle = np.linalg.norm(quality["translation_mm"]), quality["rotation_degrees"]
        print(f"{person}: {distance:.1f} mm, {angle:.1f} degrees")


if __name__ == "__main__":
    main()
