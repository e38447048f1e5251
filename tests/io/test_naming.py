"""Where results are written."""

from pathlib import Path

from common.io.naming import make_result_path, rename_result
from tests.refused import refused


def test_results_are_named_as_bids_derivatives_unless_their_names_or_suffixes_are_others():
    for name, expected in {
        "sub-01_T1w": "sub-01/anat/sub-01_res-high_desc-sr_T1w",
        "sub-01_ses-b2_acq-x_run-1_FLAIR": "sub-01/ses-b2/anat/sub-01_ses-b2_acq-x_run-1_res-high_desc-sr_FLAIR",
        "sub-1_space-T1w_res-2mm_desc-preproc_T2w": "sub-1/anat/sub-1_space-T1w_res-high_desc-preprocsr_T2w",
    }.items():
        assert make_result_path("out", name, bids="true") == Path(f"out/{expected}.nii.gz")
        assert make_result_path("out", name) == Path(f"out/{name}_sr.nii.gz")
    no_names = "scan T1w ses-1_T1w sub-01_fast_T1w sub-01_sub-02_T1w sub-0.1_T1w sub-01_mod-x_T1w sub-../x_T1w".split()
    words = "sub-<label>", "keys of sub, ses", "each once", "letters and digits"
    for name, said in {**dict.fromkeys(no_names, words), "sub-01_t1w": ("'t1w'", "T1w, T2w")}.items():
        refused(lambda name=name: make_result_path("out", name, bids=True), ValueError, f"{name}: ", *said, "--bids")


def test_a_name_that_file_systems_refuse_is_refused_first():
    """A file is written as .part-NAME first; letters may have two bytes."""
    for letter, most in (("x", 239), ("ä", 119)):
        assert len(make_result_path("out", letter * most).name.encode()) + len(".part-") <= 255
        refused(
            lambda name=letter * (most + 1): make_result_path("out", name), ValueError, "at most 249", "rename the scan"
        )


def test_another_volume_about_a_result_is_named_as_if_it_were_made_alike():
    for name in ("sub-1_desc-xsr_T1w", "sub-1_res-sr_T1w", "a_sr"):
        for bids in (False, *([True] if name.startswith("sub") else [])):
            path = make_result_path("out", name, bids=bids)
            assert rename_result(path, "added") == make_result_path("out", name, "added", bids)
    refused(lambda: rename_result(make_result_path("out", "a" * 239), "added"), ValueError, "252 bytes")
