"""A case is the entry that transforms read; its messages name what the user named, once."""

from common.program.cases.case import Case

ENTRY = {"image": "/data/a.b/scan.nii.gz", "guide": "/data/guide.nii", "subject": "anna"}


def test_an_entry_is_named_by_its_name_or_its_file_and_not_twice_in_a_line():
    assert Case(ENTRY).name == "anna_scan" and Case(ENTRY | {"name": "one"}).name == "one"
    assert Case({"lr": "/lr.nii", "hr": "/hr.nii", "subject": "hr"}).name == "hr"
    assert Case({"hr": "/hr.nii", "subject": "site/anna/"}).name == "site_anna_hr"
    # A subject's name is a word, so that no two subjects' results have one name by chance.
    named = {("1", "t1w"): "1_t1w", ("t", "t1w"): "t_t1w", ("b", "kirby"): "b_kirby", ("1", "scan-1_t1w"): "scan-1_t1w"}
    assert {key: Case({"hr": f"/{key[1]}.nii", "subject": key[0]}).name for key in named} == named
    assert Case(ENTRY).shorten("/data/a.b/scan.nii.gz: it is thin; see. More") == "it is thin"
    assert Case(ENTRY).shorten("/data/guide.nii: it is 1.5 mm off. More") == "it is 1.5 mm off"
    assert Case(ENTRY | {"name": "one"}).shorten("one: bad\nmore") == "bad"


def test_no_temporary_file_is_named_to_the_user():
    """A converted series and each stack of an exam are named as results, a guide as what it was made of."""
    files = {"/temporary/1/ax.nii.gz": "A (DICOM series 1)", "/temporary/2/sag.nii.gz": "B (DICOM series 2)"}
    first, second = files
    series, exam = Case({"image": first, "name": "ax"}), Case({"image": first, "name": "head", "stacks": [second]})
    for case in (series, exam):
        case.sources, case.inputs = files, {file: {"SeriesInstanceUID": "1"} for file in files}
        assert case.source == "A (DICOM series 1)"
        with case.catch_problem():
            raise ValueError(f"{first}: too thin; {second}")
    assert series.problem == "ax: too thin; B (DICOM series 2)"
    assert exam.problem == "ax: too thin; sag"
    # Which stack it is about stays.
    assert series.shorten(series.problem) == "too thin" and exam.shorten(exam.problem) == "ax: too thin"
