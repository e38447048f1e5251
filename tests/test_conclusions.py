"""What is concluded: from made-up tables, and on the page of all methods."""

import csv
import re

import numpy as np
import pytest

from tests.benchmarks.conclusions import FOLDER, UDEAN, correct_by_holm, read_rows, recompute

PAGE = (FOLDER / "results.md").read_text(encoding="utf-8")
FOUND = recompute(FOLDER)
DC = ", with data consistency"
GAINS = {"A": (3, 4, 3, 4), "B": (1, 3, 1, 1), "UDEAN": (0, 1, 2, 1)}  # p of 0.00121, 0.05767 and 0.09172


def conclude(folder, gains, people="abcd", **facts):
    """Recompute a table of these methods' gains, each of a person's volume; facts are of methods."""
    lines = [
        {"case": i, "person": person, "method": method, "psnr": 20 + 5 * i + gain, "ssim": 0.5}
        | {"trained": "" if method.startswith("cubic") else "yes", "knew": ""}
        | facts.get(method, {})
        for method, of_people in ({"cubic": [0] * len(people)} | gains).items()
        for i, (person, gain) in enumerate(zip(people, of_people, strict=True))
    ]
    with (folder / "isotropic.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, lines[0])
        table.writeheader()
        table.writerows(lines)
    return {title.removeprefix("isotropic/heads/"): lines[1:] for title, lines in recompute(folder).items()}


def test_differences_and_p_of_a_family(tmp_path):
    found = conclude(tmp_path, GAINS)
    assert found["raw"] == [
        ["A", "cubic", "4", "3.50", "3.00", "4.00", "0.002", "0.004", "0.005"],
        ["B", "cubic", "4", "1.50", "1.00", "3.00", "0.058", "0.116", "0.174"],  # twice and three times p
        ["UDEAN", "cubic", "4", "1.00", "0.00", "2.00", "0.092", "0.116", "0.184"],  # not below that of B; twice p
    ]
    assert [line[:4] for line in found["rivals"]] == [["UDEAN", "A", "4", "-2.50"], ["UDEAN", "B", "4", "-0.50"]]
    assert {"DC", "added"}.isdisjoint(found)


def test_who_is_in_a_family(tmp_path):
    """Not what learned nothing, nor rows of the other family; variants of UDEAN are no rivals."""
    before = conclude(tmp_path, GAINS)
    others = {"total variation": (9, 8, 9, 8), "C": (1, 2, 1, 2), "cubic" + DC: (1, 1, 1, 1), "A" + DC: (5, 5, 4, 5)}
    facts = {"total variation": {"trained": ""}, "C": {"trained": "below start"}}
    after = conclude(tmp_path, GAINS | others, **facts)
    assert (after["raw"], after["rivals"]) == (before["raw"], before["rivals"])
    assert [line[:4] for line in after["DC"]] == [["A" + DC, "cubic" + DC, "4", "3.75"]]
    assert [line[:4] for line in after["added"]] == [["A" + DC, "A", "4", "1.25"]]
    more = {"UDEAN, window": (1, 2, 3, 4), "Z": (1, 2, 1, 2)}
    wider = conclude(tmp_path, GAINS | more, Z={"trained": "", "knew": "scan and degradation"})
    assert [line[0] for line in wider["raw"]] == [*GAINS, *more]
    assert [line[1] for line in wider["rivals"]] == ["A", "B", "Z"]


@pytest.mark.parametrize("gains", [(0, 0, 0, 1), (7, 7, 7, 8)])
def test_what_is_sure_stays_so_with_one_row_more(gains, tmp_path):
    before, after = conclude(tmp_path, GAINS)["raw"], conclude(tmp_path, GAINS | {"new": gains})["raw"]
    assert all(float(new[7]) <= float(old[8]) for old, new in zip(before, after, strict=False))


def test_volumes_of_one_person_are_one_observation(tmp_path):
    twice = {method: (*gains, gains[3] - 1, gains[3] + 1) for method, gains in GAINS.items()}
    assert conclude(tmp_path, twice, "abcddd")["raw"] == conclude(tmp_path, GAINS)["raw"]
    two = conclude(tmp_path, {"A": (3, 4, 4, 4)}, "abbb")["raw"]
    assert two == [["A", "cubic", "2", "3.50", "3.00", "4.00", "-", "-", "-"]]


def test_without_a_supervised_network_that_learned_there_is_no_family(tmp_path):
    twin = "UDEAN's network, supervised"
    assert "raw" in conclude(tmp_path, GAINS | {twin: (0, 1, 0, 1)})
    assert "raw" not in conclude(tmp_path, GAINS | {twin: (0, 1, 0, 0)})
    (tmp_path / "isotropic.csv").rename(tmp_path / "isotropic_real.csv")
    assert "raw" in conclude(tmp_path, GAINS | {twin: (0, 1, 0, 1)})
    assert "isotropic/real/raw" in recompute(tmp_path)


def test_gains_are_rounded_to_the_nearest_and_shifts_shown(tmp_path):
    registered, moved = {"cubic": 30.0, "A": 31.239}, {"cubic": 0.0, "A": -0.259}
    facts = {
        method: {"psnr_registered": registered[method]}
        | {"displacement_x": 0.1, "displacement_y": moved[method], "displacement_z": 0.0}
        for method in registered
    }
    facts["A"]["ssim"] = 0.4999  # -0.000 is no loss
    (_, line) = conclude(tmp_path, {"A": (-0.519, -0.519, -0.519, -0.518)}, **facts)["isotropic"]
    assert line == ["A", "-0.52/+0.000", "+1.24 (0.26)"]


def test_written_tables_are_those_of_the_script():
    for folder, found in ((FOLDER, FOUND), (UDEAN, recompute(UDEAN))):
        for name in (title for title in found if "/" not in title):
            with (folder / f"{name}_table.csv").open(newline="", encoding="utf-8") as file:
                assert list(csv.reader(file)) == found[name], name


def test_the_means_of_the_trial_are_those_of_its_volumes():
    """Each row of ``trial_mean.csv`` is of the method of ``trial.csv`` that it names."""
    names = {
        "paper.json": "the paper to the letter",
        "train.json": "with the residual",
        "anchored.json": "with residual and anchor",
        "udean_window": "window",
    }
    scores = {
        (row["scanner"], row["method"], row["case"]): (float(row["psnr"]), float(row["ssim"]))
        for row in read_rows(UDEAN / "trial.csv")
    }
    for line in read_rows(UDEAN / "trial_mean.csv"):
        for column, scanner in (("truncation", "truncation"), ("partial Fourier 5/8", "partial fourier")):
            cubic = {case: each for (*at, case), each in scores.items() if at == [scanner, "cubic"]}
            method = names.get(line["method"], line["method"])
            psnr, ssim = np.mean([np.subtract(scores[scanner, method, case], cubic[case]) for case in cubic], axis=0)
            assert line[column].rstrip("†") == f"{psnr:+.2f}, {ssim:+.3f}", (line["method"], column)


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
        column = int(family == "rivals")
        lower = {line[column].removesuffix(DC) for line in lines if line[3].startswith("-") != bool(column)}
        ordered = sorted(sure.items(), key=lambda item: -float(item[1]))
        above, below = ([f"{row} ({gain})" for row, gain in ordered if (row in lower) == at] for at in (False, True))
        named = ", ".join(above) + ("; surely below: " + ", ".join(below) if below else "")
        assert f": {named}." in text.replace(" dB)", ")")
    assert {*re.findall(r"\d+\.\d+", text)} <= {cell.lstrip("-") for line in lines for cell in line}


def test_figures_of_shorter_trainings_are_those_of_their_tables():
    found = re.findall(r"^- \[.*?\]\((\w+)_table.csv\)(.*)$", PAGE, re.MULTILINE)
    assert found
    for name, text in found:
        columns = [column for column in zip(*FOUND[name], strict=True) if not column[0].startswith("real")]
        known = {score for column in columns for cell in column for score in cell.split("/")}
        assert {f"+{figure}" for figure in re.findall(r"\d+\.\d+", text)} <= known, name


def test_holm_by_a_known_answer():
    assert correct_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_by_holm([0.9, 0.8]) == [1.0, 1.0] and correct_by_holm([]) == []


def test_holm_rejects_what_the_procedure_rejects():
    """From the smallest p on, while p_(k) <= alpha / (m - k + 1); at the first that is larger it ends."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        p, alpha = rng.uniform(0, 0.05, rng.integers(1, 8)), rng.uniform(0.01, 0.2)
        rejected = np.zeros(len(p), dtype=bool)
        for k, i in enumerate(np.argsort(p)):
            if p[i] > alpha / (len(p) - k):
                break
            rejected[i] = True
        np.testing.assert_array_equal(np.array(correct_by_holm(p.tolist())) <= alpha, rejected)
