"""Write the real exams of exams.json: thick stacks of one contrast in several planes, or repeated.

    python -m common.lab.queue.exams --clones CLONES --output_dir EXAMS

CLONES/OWNER+NAME/repo is a git clone, with or without a work tree, of https://github.com/OWNER/NAME. Each exam gets a
folder with exam.json and, of each stack, STACK.nii.gz, its sidecar STACK.json and perhaps STACK_mask.nii.gz. Any stack
can be left out. A line on each says what is measured in it. Noise is in % of the 99.9th percentile. Width, of the
slices' profile, is in distances of the slices.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ...degradations.fitted_profile import FittedProfile
from ...io.files import format_json
from ...physics.noise import estimate_noise_in_slices
from ...program.dicom.volume_or_series import open_volume
from ...transforms.scan.load import LoadScand
from .clones import check_clones, extract_files

KEPT = ("SliceThickness", "SliceEncodingDirection", "EchoTime", "RepetitionTime")  # of a sidecar, as in BIDS


def read_exams() -> dict[str, dict[str, Any]]:
    """What is known of each exam: person, part of the body, source, licence, and the stacks' files in the clone."""
    return json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def write_exam(exam: Mapping[str, Any], clones: Path, folder: Path) -> list[str]:
    """Write the stacks of an exam, and what is known of it; return a line on each stack.

    Args:
        exam: an exam of :func:`read_exams`.
        clones: the folder of the clones.
        folder: where the exam goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clone, lines = exam["repository"].replace("/", "+"), []
    for name, path in exam["stacks"].items():
        with extract_files(clones, clone, path, exam["commit"]) as file:
            image = open_volume(file, str(file))
            voxels = np.asanyarray(image.dataobj)
            volume = nib.Nifti1Image(voxels, image.affine)
            volume.header.set_xyzt_units("mm")
            nib.save(volume, folder / f"{name}.nii.gz")
            known = {key: image.extra[key] for key in KEPT if key in image.extra}
        (folder / f"{name}.json").write_text(format_json(known, indent=2) + "\n", encoding="utf-8")
        if mask := exam.get("masks", {}).get(name):
            with extract_files(clones, clone, mask, exam["commit"]) as file:
                (folder / f"{name}_mask.nii.gz").write_bytes(file.read_bytes())
        size = "x".join(str(count) for count in voxels.shape)
        spacing = "x".join(f"{step:.3g}" for step in nib.affines.voxel_sizes(image.affine))
        read = LoadScand("image")({"image": str(folder / f"{name}.nii.gz")})["image"]
        noise = estimate_noise_in_slices(read[0].as_tensor())
        width, found = FittedProfile((1, 1, 1)).estimate_width(read[None])
        width_in_words = f"{width:.2f} ({found})" if width else f"unknown ({found})"
        lines.append(f"{name}: {size} voxels of {spacing} mm, noise {noise:.1%}, width {width_in_words}")
    (folder / "exam.json").write_text(format_json(exam, indent=2) + "\n", encoding="utf-8")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clones", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    options = parser.parse_args()
    exams = read_exams()
    try:
        check_clones(options.clones, [exam["repository"].replace("/", "+") for exam in exams.values()])
    except FileNotFoundError as error:
        parser.error(str(error))
    failures = []
    for name, exam in exams.items():
        print(f"{name}: {exam['body']} of {exam['person']}, {exam['contrast']}, {exam['kind']}")
        try:
            print("\n".join(f"  {line}" for line in write_exam(exam, options.clones, options.output_dir / name)))
        except FileNotFoundError as error:
            failures.append(f"{name}: {error}")
    if failures:
        raise SystemExit("\n".join(["these exams were not written:", *failures]))


if __name__ == "__main__":
    main()
