"""What is concluded: from made-up tables, and on the page of all methods."""

import csv
import re

import pytest

from tests.benchmarks.conclusions import FOLDER, TABLES, recompute

PAGE = (FOLDER / "results.md").read_text(encoding="utf-8")
FOUND = recompute(FOLDER)
DC = ", with data consistency"
PEOPLE = "abcd"
GAINS = {"A": (3, 4, 3, 4), "B": (1, 3, 1, 1), "UDEAN": (0, 1, 2, 1)}  # t of 3 degrees of freedom: 12.12, 3, 2.45
P = {"A": 0.0012077, "B": 0.0576689, "UDEAN": 0.0917211}


def conclude(folder, gains, people=PEOPLE, more=(), **facts):
    """Recompute a table of these methods' gains by person; facts are of all, or of a method."""
    lines = [
        {"case": person, "person": person, "method": method, "psnr": 20 + 5 * i + gain, "ssim": 0.5}
        | {"trained": "" if method.startswith("cubic") else "yes", "knew": ""}
        | facts.get(method, {})
        for method, of_people in ({"cubic": [0] * len(people)} | gains).items()
        for i, (person, gain) in enumerate(zip(people, of_people, strict=True))
    ]
    with (folder / "isotropic.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, lines[0])
        table.writeheader()
        table.writerows([*lines, *more])
    found = recompute(folder)
    return {
        title.rpartition("/")[2]: {line[0] + line[1] * ("rivals" in title): line for line in lines[1:]}
        for title, lines in found.items()
    }


def test_differences_and_p_of_a_family(tmp_path):
    found = conclude(tmp_path, GAINS)
    assert found["raw"]["A"] == ["A", "cubic", "4", "3.50", "3.00", "4.00", "0.002", "0.004", "0.005"]
    assert found["raw"]["B"][6:] == ["0.058", "0.116", "0.174"]  # 2 and 3 times p
    assert found["raw"]["UDEAN"][6:] == ["0.092", "0.116", "0.184"]  # not below the one before; twice p
    assert [line[:4] for line in found["rivals"].values()] == [
        ["UDEAN", "A", "4", "-2.50"],
        ["UDEAN", "B", "4", "-0.50"],
    ]
    assert {"DC", "added"}.isdisjoint(found)


def test_other_rows_change_no_family(tmp_path):
    """Rows that learn nothing, did not learn, or have data consistency; variants of UDEAN are no rivals."""
    before = conclude(tmp_path, GAINS)
    others = {"total variation": (9, 8, 9, 8), "C": (1, 2, 1, 2), "cubic" + DC: (1, 1, 1, 1), "A" + DC: (5, 5, 4, 5)}
    facts = {"total variation": {"trained": ""}, "C": {"trained": "below start"}}
    after = conclude(tmp_path, GAINS | others, **facts)
    assert (after["raw"], after["rivals"]) == (before["raw"], before["rivals"])
    assert after["DC"]["A" + DC][1:4] == ["cubic" + DC, "4", "3.75"] and after["added"]["A" + DC][1:4] == [
        "A",
        "4",
        "1.25",
    ]
    assert "UDEANUDEAN, window" not in conclude(tmp_path, GAINS | {"UDEAN, window": (1, 2, 3, 4)})["rivals"]
    assert (
        "Z" in conclude(tmp_path, GAINS | {"Z": (1, 2, 1, 2)}, Z={"trained": "", "knew": "scan and degradation"})["raw"]
    )


@pytest.mark.parametrize("gains", [(0, 0, 0, 1), (7, 7, 7, 8)])
def test_what_is_sure_stays_so_with_one_row_more(gains, tmp_path):
    before, after = conclude(tmp_path, GAINS)["raw"], conclude(tmp_path, GAINS | {"new": gains})["raw"]
    assert all(float(after[name][7]) <= float(before[name][8]) for name in GAINS)


def test_volumes_of_one_person_are_one_observation(tmp_path):
    extra = [
        {
            "case": f"d{i}",
            "person": "d",
            "method": method,
            "psnr": 35 + gain + i,
            "ssim": 0.5,
            "trained": "yes" if gain else "",
        }
        for i in (-2, 2)
        for method, gain in {"cubic": 0, "A": 4, "B": 1, "UDEAN": 1}.items()
    ]
    assert conclude(tmp_path, GAINS, more=extra)["raw"] == conclude(tmp_path, GAINS)["raw"]
    two = conclude(tmp_path, {"A": (3, 4)}, people="ab")["raw"]["A"]
    assert two == ["A", "cubic", "2", "3.50", "3.00", "4.00", "-", "-", "-"]


def test_without_a_supervised_network_that_learned_there_is_no_family(tmp_path):
    twin = "UDEAN's network, supervised"
    assert "raw" in conclude(tmp_path, GAINS | {twin: (0, 1, 0, 1)})
    assert "raw" not in conclude(tmp_path, GAINS | {twin: (0, 1, 0, 0)})


def test_gains_are_truncated_and_shifts_shown(tmp_path):
    scores = {
        name: {"psnr_registered": 30 + gain, "displacement_x": 0, "displacement_y": -shift, "displacement_z": 0.1}
        for name, gain, shift in (("cubic", 0, 0), ("A", 1.239, 0.259))
    }
    table = conclude(tmp_path, {"A": (-0.519, -0.519, -0.519, -0.519)}, **scores)["isotropic"]
    assert table["A"] == ["A", "-0.51/+0.000", "+1.23", "0.25"]


def test_the_page_shows_all_tables():
    for name in TABLES:
        with (FOLDER / f"{name}_table.csv").open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == FOUND[name]
        assert f"{name}_table.csv" in PAGE


@pytest.mark.parametrize("title", ["isotropic", "in_plane"])
@pytest.mark.parametrize("family", ["raw", "DC", "added", "rivals"])
def test_what_follows_is_what_was_found(title, family):
    """The page names the rows whose difference is sure, by its size, and no other figure than the script's."""
    _, along, plane = re.split(r"\n(?:Along all axes|In plane)\b.*:\n", PAGE.partition("## What follows")[2])
    text = re.search(rf"(?i)^- \*{family}\*.*$", along if title == "isotropic" else plane, re.MULTILINE)[0]
    lines = FOUND[f"{title}/heads/{family}"][1:]
    assert {line[2] for line in lines} == {"6"}
    sure = {line[family == "rivals"].removesuffix(DC): line[3].lstrip("-") for line in lines if float(line[8]) < 0.05}
    if family == "added":
        assert f"{min(sure.values())} to {max(sure.values())} dB, surely except for " in text
        unsure = [f"{line[1]}: {line[3]} dB, p {line[7]}" for line in lines if line[1] not in sure]
        assert unsure and all(each in text for each in unsure)
    else:
        named = [f"{row} ({gain})" for row, gain in sorted(sure.items(), key=lambda item: -float(item[1]))]
        assert ", ".join(named) + "." in text.replace(" dB)", ")")
    assert {*re.findall(r"\d+\.\d+", text)} <= {cell.lstrip("-") for line in lines for cell in line}


def test_figures_of_shorter_trainings_are_those_of_their_tables():
    lines = re.findall(r"^- \[.*?\]\((\w+)_table.csv\)(.*)$", PAGE, re.MULTILINE)
    assert len(lines) == len(TABLES) - 2
    for name, text in lines:
        known = {score for line in FOUND[name] for cell in line for score in cell.split("/")}
        assert {f"+{figure}" for figure in re.findall(r"\d+\.\d+", text)} <= known
