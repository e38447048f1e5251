"""Which files are scans, by their names, headers and sidecars, and which cannot be read as they are."""

import json

import nibabel as nib
import numpy as np
import pytest

from common.program.cases.scan_kinds import explain_unreadable, explain_unsuitable_file

SCANS = "T1w T2w FLAIR UNIT1 PDT2 bold sbref dwi trace epi magnitude1 angio TSE".split()
OTHERS = {
    "a mask": "mask dseg probseg defacemask".split(),
    "a phase": "phase phase1 phasediff fieldmap".split(),
    "a map": "T1map T2starmap R1map Chimap TB1map dwimap statmap MTsat T1rho ADC FA".split(),
    "a PET": ["pet"],
    "a CT": ["ct"],
}
PARTS = {"mag": None, "phase": "a phase", "real": "the real or", "imag": "the real or"}


def image(path, intent="none", shape=(3, 3, 3), **sidecar):
    volume = nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4))
    volume.header.set_intent(intent, allow_unknown=True)
    path.parent.mkdir(exist_ok=True)
    nib.save(volume, path)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


@pytest.mark.parametrize("seed", range(4))
def test_the_suffix_and_the_part_of_bids_names_decide_and_other_words_do_not(tmp_path, seed):
    rng = np.random.default_rng(seed)
    known = {suffix: kind for kind, suffixes in OTHERS.items() for suffix in suffixes} | dict.fromkeys(SCANS)
    for suffix, kind in known.items():
        word = str(rng.choice([*known]))
        entities = [f"acq-{word}", "ses-mask", "run-1", "desc-brain"][: rng.integers(5)]
        ending = rng.choice([".nii", ".nii.gz", ".mgz", ".nrrd", "+orig.HEAD"][: 4 if kind else 5])
        part, other = ("mag", None) if kind else tuple(PARTS.items())[rng.integers(len(PARTS))]
        name = "_".join([f"sub-{word}", *entities, f"part-{part}", suffix]) + ending
        reason = explain_unsuitable_file(tmp_path / name)
        expected = kind or other
        assert (reason is None) if expected is None else reason.startswith(expected), name
        for name in (f"{word}_t1.nii", f"t1_{suffix}.nii", f"{word}/{suffix}.mgz", f"c1sub-1_{suffix}.nii"):
            assert explain_unsuitable_file(tmp_path / name) is None, name


@pytest.mark.parametrize(
    "intent, sidecar, why",
    [
        ("none", {}, None),
        (2001, {"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM"], "Modality": "MR", "Units": "arbitrary"}, None),
        ("none", {"ImageType": 5, "Modality": ["MR", None], "Units": {}, "ComplexImageComponent": []}, None),
        ("label", {}, "label map, by the intent code"),
        ("z score", {}, "z score"),
        ("displacement vector", {}, "displacement"),
        ("none", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
        ("none", {"ImageType": "DERIVED\\PRIMARY\\ADC"}, "map"),
        ("none", {"ImageType": ["DERIVED", "PRIMARY", "MIP"]}, "projection"),
        ("none", {"ImageType": ["ORIGINAL", "PRIMARY", "SW_P_FFE", "SW_P", "FFE"]}, "phase"),
        ("none", {"ImageType": ["ORIGINAL", "PRIMARY", "T1", "NONE", "IMAGINARY"]}, "real or imaginary"),
        ("none", {"ImageTypeText": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
        ("none", {"ComplexImageComponent": "REAL"}, "real or imaginary"),
        ("none", {"ComplexImageComponent": "MIXED", "ImageType": ["ORIGINAL", "PRIMARY", "SW_M_FFE", "SW_M"]}, None),
        ("none", {"Units": "Hz"}, "phase"),
        ("none", {"Units": "ms"}, "a map"),
        ("none", {"Modality": "", "Units": " ", "ImageType": [""], "TracerName": ""}, None),
        ("none", {"TracerName": "FDG"}, "a PET"),
        ("none", {"Modality": "PT"}, "a PET, by its sidecar"),
        ("none", {"Modality": "CT"}, "a CT"),
        ("none", {"shape": (500, 1, 1)}, "a surface"),
        ("none", {"shape": (1, 1, 1, 1, 2, 9)}, "a surface"),
        ("none", {"shape": (3, 3, 3, 1, 3)}, "vectors"),
        ("none", {"shape": (3, 3, 3, 1)}, None),
    ],
)
def test_headers_and_sidecars(tmp_path, intent, sidecar, why):
    path = image(tmp_path / "a.nii", intent, **sidecar)
    reason = explain_unsuitable_file(path)
    assert (reason is None) if why is None else (why in reason)
    assert (explain_unsuitable_file(path, ct=True) is None) == (why in (None, "a CT"))


def test_what_cannot_be_read_says_what_to_do(tmp_path):
    (tmp_path / "lfs.nii").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "unlocked.nii.gz").write_text("/annex/objects/MD5E-s1--x.nii.gz\n")
    (tmp_path / "locked.nii.gz").symlink_to("../.git/annex/objects/x")
    (tmp_path / "gone.mgz").symlink_to("nowhere")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    (tmp_path / "closed.dcm").symlink_to("/proc/self/mem")  # a file that cannot be read
    (tmp_path / "a.nii").touch()
    for name, *words in (
        ("lfs.nii", "git lfs pull"),
        ("unlocked.nii.gz", f"datalad get {tmp_path}/unlocked.nii.gz", "git annex get"),
        ("locked.nii.gz", "datalad get"),
        ("gone.mgz", "nowhere"),
        ("b.nii.bz2", "bunzip2"),
        ("b.MNC", "nib-convert"),
        ("2dseq", "Bruker"),
        ("1.IMA", "is none"),
        ("closed.dcm", "cannot be read (Input/output error)"),
        ("b+orig.BRIK.gz", ".HEAD"),
    ):
        assert all(word in explain_unreadable(tmp_path / name) for word in words), name
    assert explain_unreadable(tmp_path / "notes.txt") is None and explain_unreadable(tmp_path / "a.nii") is None
