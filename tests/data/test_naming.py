"""Where results are written, and what is said of an entry in few words."""

from pathlib import Path

import pytest

from common.data.naming import few_words, result_name, result_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_T1w", "sub-01/anat/sub-01_res-high_desc-sr_T1w"),
        ("sub-01_ses-b2_acq-x_run-1_FLAIR", "sub-01/ses-b2/anat/sub-01_ses-b2_acq-x_run-1_res-high_desc-sr_FLAIR"),
        ("sub-1_space-T1w_res-2mm_desc-preproc_T2w", "sub-1/anat/sub-1_space-T1w_res-high_desc-preprocsr_T2w"),
    ],
)
def test_results_are_named_as_bids_derivatives(name, expected):
    assert result_path("out", name, bids="true") == Path(f"out/{expected}.nii.gz")
    assert result_path("out", name) == Path(f"out/{name}_sr.nii.gz")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scan", "ends in|not named"),
        ("T1w", "not named"),
        ("ses-1_T1w", "not named"),
        ("sub-01_fast_T1w", "not named"),
        ("sub-01_sub-02_T1w", "each once"),
        ("sub-0.1_T1w", "letters and digits"),
        ("sub-01_mod-x_T1w", "keys of sub, ses"),
        ("sub-../x_T1w", "not named"),
        ("sub-01_t1w", "ends in 't1w'.*T1w, T2w"),
    ],
)
def test_other_names_are_refused_where_a_derivative_is_wanted(name, said):
    with pytest.raises(ValueError, match=f"^{name}: .*({said}).*--bids"):
        result_path("out", name, bids=True)


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
