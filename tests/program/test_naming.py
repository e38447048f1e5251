"""Where results are written."""

from pathlib import Path

from common.program.naming import make_label_path, make_result_path, make_series_path, rename_result
from tests.refused import refused

OTHERS = {
    "sub-01_t1w": ("'t1w'", "T1w, T2w", "PD, UNIT1, MEGRE"),
    "sub-01_task-rest_sbref": ("sbref", "func"),
    "sub-01_m0scan": ("m0scan", "perf"),
}


def test_results_are_named_as_bids_derivatives_unless_their_names_or_suffixes_are_others():
    for name, expected in {
        "sub-01_T1w": "sub-01/anat/sub-01_res-high_desc-sr_T1w",
        "sub-01_ses-b2_acq-x_run-1_FLAIR": "sub-01/ses-b2/anat/sub-01_ses-b2_acq-x_run-1_res-high_desc-sr_FLAIR",
        "sub-1_space-T1w_res-2mm_desc-preproc_T2w": "sub-1/anat/sub-1_space-T1w_res-high_desc-preprocsr_T2w",
        "sub-1_inv-1_run-2_part-mag_MP2RAGE": "sub-1/anat/sub-1_run-2_inv-1_part-mag_res-high_desc-sr_MP2RAGE",
        "sub-1_echo-1_MEGRE": "sub-1/anat/sub-1_echo-1_res-high_desc-sr_MEGRE",
    }.items():
        assert make_result_path("out", name, bids=True) == Path(f"out/{expected}.nii.gz")
        assert make_result_path("out", name) == Path(f"out/{name}_sr.nii.gz")
    no_names = "scan T1w ses-1_T1w sub-01_fast_T1w sub-01_sub-02_T1w sub-0.1_T1w sub-01_mod-x_T1w sub-../x_T1w".split()
    for name, said in {**dict.fromkeys(no_names, ("sub-<label>",)), **OTHERS}.items():
        refused(lambda name=name: make_result_path("out", name, bids=True), ValueError, f"{name}: ", *said, "--bids")


def test_an_output_that_is_a_file_is_the_result(tmp_path):
    """What belongs to it has its name. A folder may be called like a file."""
    for out, stem in {"o/my.scan.nii.gz": "o/my.scan", "o/desc-x_sr.nii": "o/desc-x"}.items():
        assert make_result_path(out, "a") == Path(out)
        interval = Path(f"{stem}_interval.nii.gz")
        assert make_result_path(out, "a", "interval") == rename_result(Path(out), "interval") == interval
        assert make_label_path(out, "a") == Path(f"{stem}_sr_label.nii.gz")
        assert make_series_path(out, "a") == Path(f"{stem}_dicom")
    refused(lambda: make_result_path("o/a.nii", "sub-1_T1w", bids=True), ValueError, "--bids")
    (tmp_path / "x.nii").mkdir()
    assert make_result_path(tmp_path / "x.nii", "a") == tmp_path / "x.nii" / "a_sr.nii.gz"


def test_a_label_map_keeps_only_entities_that_bids_allows_it():
    """The others tell it from those of the other images."""
    for name, expected in {
        "sub-1_run-2_T1w": "sub-1_run-2_res-high_desc-srT1w_dseg",
        "sub-1_inv-2_part-mag_desc-x_MP2RAGE": "sub-1_part-mag_res-high_desc-xsrMP2RAGEinv2_dseg",
    }.items():
        assert make_label_path("out", name, bids=True) == Path(f"out/sub-1/anat/{expected}.nii.gz")


def test_a_name_that_file_systems_refuse_is_refused_first():
    """A file is written as .part-NAME first; letters may have two bytes."""
    for letter, most in (("x", 239), ("ä", 119)):
        assert len(make_result_path("out", letter * most).name.encode()) + len(".part-") <= 255
        refused(lambda name=letter * (most + 1): make_result_path("out", name), ValueError, "at most 249")


def test_another_volume_about_a_result_is_named_as_if_it_were_made_alike():
    for name in ("sub-1_desc-xsr_T1w", "sub-1_res-sr_T1w", "a_sr"):
        for bids in (False, *([True] if name.startswith("sub") else [])):
            path = make_result_path("out", name, bids=bids)
            assert rename_result(path, "added") == make_result_path("out", name, "added", bids)
    refused(lambda: rename_result(make_result_path("out", "a" * 239), "added"), ValueError, "252 bytes")
