"""Whose a volume is, of which visit, and whether with a contrast agent: by header, sidecar JSON and name."""

import json
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

from common.program.cases.case import Case
from common.program.exams.contrast_agent import mentions_agent
from common.program.exams.discover import discover_cases
from common.program.exams.grouping import identify_contrast, identify_study, is_enhanced
from common.program.exams.owners import describe_unknown, identify_owner, split_by_owner
from common.program.exams.people import explain_strangers
from tests.bundles import runs

# By kind: two values that differ, others that are equal to the first, and whether such a one tells a person.
PERSON = {
    "PatientID": ("P17", "P18", ["p17 "], True),
    "PatientName": ("DOE^JOHN", "DOE^JANE", ["John Doe", "DOE^JOHN^M"], True),
    "PatientBirthDate": ("19700102", "19700103", ["1970-01-02"], False),
    "PatientSex": ("M", "F", ["male"], False),
    "sub": ("sub-01", "sub-02", ["Sub-01"], True),
}
VISIT = {
    "ses": ("ses-1", "ses-2", ["SES-1"], False),
    "StudyInstanceUID": ("1.2.3", "1.2.4", ["1.2.3"], True),
    "StudyDate": ("20240131", "20240301", ["2024-01-31", "20240201"], False),
}
BLANK = ["", "ANON", "Anonymized", "00000000", "unknown", None]


def scan(folder, number, form="sidecar", **known):
    """A scan of which something is known: in a DICOM header, a sidecar JSON, or the name of a folder or a file."""
    labels = [known.pop(key) for key in ("sub", "ses") if known.get(key)]
    place = folder.joinpath(*labels) if number % 2 else folder
    path = place / "_".join([*labels * (1 - number % 2), f"t2_{number}.nii"])
    if form == "header":
        header = SimpleNamespace(get=known.get)
        series = SimpleNamespace(headers=[header], files=[path.with_suffix(".dcm")], study="1", stem="t2", contrast=())
        return Case({"image": f"{number}.nii", "name": "t2"}, series={f"{number}.nii": series})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(known))
    return Case({"image": str(path), "name": path.stem})


def strangers(*cases, **options):
    return explain_strangers([*map(identify_owner, cases)], **options)


@pytest.mark.parametrize("kind", [*PERSON, *VISIT])
def test_each_kind_of_evidence_parts_people_and_visits(kind, tmp_path):
    one, other, equal, tells = (PERSON | VISIT)[kind]
    for number, form in enumerate(("sidecar", "header")):
        first = scan(tmp_path, number, form, **{kind: one})
        for value in [one, *equal, *BLANK * (kind not in ("sub", "ses"))]:
            same = scan(tmp_path / "other", 2, **{kind: value})
            assert strangers(first, same) is None, value
            assert bool(describe_unknown([first, same])) == (not tells or value in BLANK), value
        stranger = scan(tmp_path / "other", 3, "header", **{kind: other})
        problem = strangers(first, same, stranger)
        assert ("the same person" if kind in PERSON else "say visits after --together") in problem
        assert (strangers(first, stranger, visits=True) is None) == (kind in VISIT)
        assert all(word not in problem for word in ("JOHN", "1970"))


@pytest.mark.parametrize("seed", range(20))
def test_people_and_visits_are_parted_in_any_order(seed, tmp_path):
    """What may be of several people is alone."""
    rng = np.random.default_rng(seed)
    truth = [(person, visit) for person in range(rng.integers(1, 4)) for visit in range(rng.integers(1, 3))]
    scans = {}
    for owner in [each for each in truth for _ in range(rng.integers(1, 4))] + [None] * int(rng.integers(0, 3)):
        known = {} if owner is None else {"PatientID": f"P{owner[0]}", "StudyInstanceUID": f"1.{owner[0]}.{owner[1]}"}
        case = scan(tmp_path, 2 * len(scans), rng.choice(["sidecar", "header"]), **known)
        scans[case["image"]] = (case, owner)
    order = [scans[key] for key in rng.permutation([*scans])]
    owner_of = {id(case): owner for case, owner in order}
    groups = [[owner_of[id(case)] for case in group] for group in split_by_owner([case for case, _ in order])]
    if len(truth) == 1:
        assert groups == [[owner for _, owner in order]]
    else:
        assert all(len({*group}) == 1 for group in groups) and [None, None] not in groups
        assert len([group for group in groups if group[0]]) == len(truth)


@pytest.mark.parametrize("seed", range(5))
def test_label_maps_are_those_of_the_visit(seed, tmp_path):
    """By pattern a scan gets its session's map, or is named; a map that is named goes elsewhere with a warning."""
    rng = np.random.default_rng(seed)
    visits = [(f"sub-{s}", f"ses-{v}") for s in "ab" for v in range(rng.integers(1, 4))]
    voxels = rng.integers(0, 2, (5, 5, 5), np.int16) * np.arange(5, dtype=np.int16)
    for sub, ses in visits:
        for run in "12":
            runs.save(tmp_path / sub / ses / f"{sub}_{ses}_run-{run}_T1w.nii", voxels + 7, np.eye(4))
    mapped = {visit for visit in visits if rng.random() < 0.6} | {visits[0]}
    several = {visit for visit in mapped if rng.random() < 0.5}
    for visit in mapped:
        for run in ["_run-1", "_run-2"] if visit in several else [""]:
            runs.save(tmp_path.joinpath(*visit) / f"{'_'.join(visit)}{run}_dseg.nii", voxels, np.eye(4), dtype=np.uint8)
    for case in discover_cases([tmp_path], tmp_path, label="**/*_dseg.nii"):
        *visit, run, _ = case.name.split("_")
        if (visit := tuple(visit)) not in mapped:
            assert "label map" in case.problem and case["image"].split("/")[-1] in case.problem
        else:
            name = "_".join([*visit, *[run] * (visit in several), "dseg.nii"])
            assert case.problem is None and case["label_map"] == str(tmp_path.joinpath(*visit) / name)
    first = tmp_path.joinpath(*visits[0]) / ("_".join([*visits[0], "run-1_T1w.nii"]))
    for sub, ses in visits[1:]:
        label = runs.save(tmp_path / "x" / f"{sub}_{ses}_dseg.nii", voxels, np.eye(4), dtype=np.uint8)
        (case,) = discover_cases([first], tmp_path, label=str(label))
        stranger, texts = sub != visits[0][0], [case.problem or "", *case.warnings]
        assert bool(case.problem) == stranger and any(f"of {sub if stranger else ses}" in text for text in texts)


WITH = """T1 COR POST GAD|T1 SAG KM|T1_+C|t1ce_cor|sub-1_ce-gd_T1w|t1c|T1+C|T1C+|C+ T1|mprage_sag_KM|T1 nach KM|T1 post|
t1_vibe_post2|postcontrast T1|AX T1 +GAD|COR T1 MDC|dopo mdc T1|T1 KONTRAST|T1W KONTRASTLI|T1 con contraste|T1 +CIV|
T1 apres gado|T1 INJ|T1-Gd|T1GD|T1POST|CE-T1|MPRAGE+C|T1 met contrast|T1 K+|T1 with contrast|T1 POSTCON|flair gd|
T1 PDC|T1_2KM|T1 KM2min|CE-MRA|T1 +CM|T1 CM|T1 i.v.|T1 i. v. KM|T1 p.c.|T1 pKM|T1 Gd free breathing"""
WITHOUT = """T1 SE TRA|T2 SPACE|T1 pre KM|T1 ohne KM|T1 nativ|T1 w/o contrast|non contrast T1|noncontrast|T1 sans gado|
T1 senza mdc|T1 sin contraste|precontrast|T1 vor KM|posterior fossa T2|T2 postop|phase contrast|sub-gd01_T1w|mtc|T1 C-|
sub-km_ses-post_T1w|acq-cor|cervical c3|C SPINE T2|bez kontrastu|T2 post processed|composed|cecil_t1|dynamic|
postcentral|CEREBRUM|T1_KMnet|T1 o. KM|T1 pre KM2|t1_a3ce9f01|post-exercise|T1 v. KM|T1 KM-|T1 KM frei|T1 kein KM|
PDCE|post 6 months|FOV 24 cm"""


@pytest.mark.parametrize("form", ["name", "SeriesDescription", "ProtocolName", "ImageComments"])
def test_words_of_radiographers_say_whether_there_is_an_agent(form, tmp_path):
    cases = {}
    for number, text in enumerate([*WITH.split("|"), *WITHOUT.split("|")]):
        text = text.strip()
        assert bool(mentions_agent(text)) == (number < len(WITH.split("|"))), text
        if form == "name":
            name = text.replace("/", "").replace(" ", "_")
            cases[text] = Case({"image": str(tmp_path / f"{name}.nii"), "name": name})
        else:
            cases[text] = scan(tmp_path, number, "header", **{form: text})
        assert is_enhanced(cases[text]) == (number < len(WITH.split("|"))), text
    for (first, one), (second, other) in combinations([*cases.items()][::5], 2):
        if is_enhanced(one) != is_enhanced(other):
            assert identify_contrast(one) != identify_contrast(other), (first, second)


def test_tags_say_whether_there_is_an_agent(tmp_path):
    for tag, yes, no in (
        ("ContrastBolusAgent", "GADOVIST", ["", "NONE", "ohne KM", "kein KM", "not given", "w/o", "UNKNOWN", None]),
        ("ContrastBolusAgent", ["Gadovist"], [False, 0, 0.0, [], {}, [""], ["none"]]),
        ("ContrastBolusAgent", True, []),
        ("ContrastBolusIngredient", "GADOLINIUM", [""]),
        ("ContrastBolusVolume", "7.5", ["0", 0, None]),
        ("ContrastBolusAgentSequence", [{}], [[]]),
    ):
        for number, form in enumerate(("sidecar", "header")):
            found = [is_enhanced(scan(tmp_path, number, form, **{tag: value})) for value in (yes, *no)]
            assert found == [True, *[False] * len(no)], tag
    assert not is_enhanced(scan(tmp_path, 0, ContrastBolusAgent="Gd", SeriesDescription="T1 nativ KM"))


@pytest.mark.parametrize(
    "names",
    [
        "study1_T1W study1_T2W study1_FLAIR | study2_T1W study2_ax_FLAIR=study2_cor_FLAIR",
        "sub-1/ses-1/anat/sub-1_ses-1_acq-ax_run-2_T2w=sub-1/ses-1/anat/sub-1_ses-1_acq-cor_T2w "
        "sub-1/ses-1/anat/sub-1_ses-1_ce-gd_T1w sub-1/ses-1/anat/sub-1_ses-1_T1w | sub-1/ses-2/anat/sub-1_ses-2_T1w",
        "IXI002-Guys-0828-T1 IXI002-Guys-0828-PD | IXI012-HH-1211-T1",
        "a/t1_tse_sag a/t2_flair_tra a/t2_tse_tra=a/t2_tse_cor | b/t1_tse_sag",
        "T1W_TSE_TRA=T1W_TSE_SAG_pre T1W_TSE_COR_+C=T1W_TSE_SAG_KM=T1W_ax_nach_KM",
        "ax=cor ax_gd=cor_gd | 001 | 002",
    ],
)
def test_exams_and_contrasts_by_their_names(names):
    """Exams between bars; stacks of one contrast have = between."""
    wanted = [
        [[Case({"image": name}) for name in contrast.split("=")] for contrast in part.split()]
        for part in names.split("|")
    ]
    studies = [{identify_study(case) for contrast in part for case in contrast} for part in wanted]
    assert all(len(keys) == 1 for keys in studies) and len(set.union(*studies)) == len(wanted)
    for part in wanted:
        contrasts = [{identify_contrast(case) for case in contrast} for contrast in part]
        assert all(len(keys) == 1 for keys in contrasts) and len(set.union(*contrasts)) == len(part)
