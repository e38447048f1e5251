"""Where results are written, and what is said of an entry in few words."""

from pathlib import Path

from common.io.naming import few_words, result_name, result_path
from tests.refused import refused


def test_results_are_named_as_bids_derivatives_unless_their_names_or_suffixes_are_others():
    for name, expected in {
        "sub-01_T1w": "sub-01/anat/sub-01_res-high_desc-sr_T1w",
        "sub-01_ses-b2_acq-x_run-1_FLAIR": "sub-01/ses-b2/anat/sub-01_ses-b2_acq-x_run-1_res-high_desc-sr_FLAIR",
        "sub-1_space-T1w_res-2mm_desc-preproc_T2w": "sub-1/anat/sub-1_space-T1w_res-high_desc-preprocsr_T2w",
    }.items():
        assert result_path("out", name, bids="true") == Path(f"out/{expected}.nii.gz")
        assert result_path("out", name) == Path(f"out/{name}_sr.nii.gz")
    no_names = "scan T1w ses-1_T1w sub-01_fast_T1w sub-01_sub-02_T1w sub-0.1_T1w sub-01_mod-x_T1w sub-../x_T1w".split()
    words = "sub-<label>", "keys of sub, ses", "each once", "letters and digits"
    for name, said in {**dict.fromkeys(no_names, words), "sub-01_t1w": ("'t1w'", "T1w, T2w")}.items():
        refused(lambda name=name: result_path("out", name, bids=True), ValueError, f"{name}: ", *said, "--bids")


def test_a_name_that_file_systems_refuse_is_refused_first():
    """A file is written as .part-NAME first; letters may have two bytes."""
    for letter, most in (("x", 239), ("ä", 119)):
        assert len(result_path("out", letter * most).name.encode()) + len(".part-") <= 255
        refused(lambda name=letter * (most + 1): result_path("out", name), ValueError, "at most 249", "rename the scan")


def test_an_entry_is_named_by_its_name_or_its_file_and_not_twice_in_a_line():
    entry = {"image": "/data/a.b/scan.nii.gz", "guide": "/data/guide.nii", "subject": "anna"}
    assert result_name(entry) == "anna_scan" and result_name(entry | {"name": "one"}) == "one"
    assert result_name({"lr": "/lr.nii", "hr": "/hr.nii", "subject": "hr"}) == "hr"
    assert result_name({"hr": "/hr.nii", "subject": "site/anna/"}) == "site_anna_hr"
    # A subject's name is a word, so that no two subjects' results have one name by chance.
    named = {("1", "t1w"): "1_t1w", ("t", "t1w"): "t_t1w", ("b", "kirby"): "b_kirby", ("1", "scan-1_t1w"): "scan-1_t1w"}
    assert {key: result_name({"hr": f"/{key[1]}.nii", "subject": key[0]}) for key in named} == named
    assert few_words("/data/a.b/scan.nii.gz: it is thin; see. More", entry) == "it is thin"
    assert few_words("/data/guide.nii: it is 1.5 mm off. More", entry) == "it is 1.5 mm off"
    assert few_words("one: bad\nmore", entry | {"name": "one"}) == "bad"
    assert len(few_words("word " * 100, entry)) <= 140
