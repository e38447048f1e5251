"""What is concluded: of made-up results, and on the papers' pages."""

import csv
import json
import re

import numpy as np
import pytest
from scipy import stats

from tests.benchmarks.adaptation import draw_adaptation
from tests.benchmarks.conclusions import (
    BASELINES,
    LIST,
    QUEUE,
    Comparison,
    Paper,
    fill_page,
    list_labels,
    read_lines,
    recompute,
)
from tests.benchmarks.queue.units import read_book

PEOPLE = {f"p{i}": "same scanner" if i < 3 else "other scanners" for i in range(8)}
STEPS = np.array([0.1, -0.1, 0.2, 0, -0.2, 0.1, 0, -0.1])  # of people; their mean is 0
TABLE = {"baselines": "T", "start": ["T", "start"], "twin": ["T", "twin"], "rows": {row: {} for row in ("A", "B", "C")}}
BOOK = {"rows": [{"paper": "P", "table": "T", "rows": ["B"], "minutes": 90, "trial_share": 0.5, "seeds": [0, 1]}]}
LEARNED = {"cubic": 0, "start": -1, "twin": 1}


def claim(above, below, scores=("psnr",), tables=("T",)):
    return {"says": f"{above} {below}", "tables": tables, "above": above, "below": below, "scores": scores}


def lines(row, gains, seed=0, people=PEOPLE):
    """Lines of results: cubic's PSNR rises from person to person, DC adds 0.3 dB to cubic and 0.1 to others."""
    for i, (person, gain) in enumerate(zip(people, np.broadcast_to(gains, len(people)), strict=True)):
        psnr = 20 + 3 * i + gain
        scores = {"psnr": psnr, "ssim": psnr / 100, "psnr_dc": psnr + (0.3 if row == "cubic" else 0.1)}
        yield {"paper": "P", "table": "T", "row": row, "seed": str(seed), "set": PEOPLE[person], "person": person} | {
            **{key: str(value) for key, value in scores.items()},
            "iterations": "" if row == "cubic" else "9",
        }


def make_paper(gains, *claims, published=(), book=BOOK, **table):
    results = [line for row, gain in {**LEARNED, **gains}.items() if gain is not None for line in lines(row, gain)]
    results += [{**line, "set": "tried", "row": "A"} for line in lines("tried", 50)]
    families = {"F": {"tables": {"T": TABLE | table}, "claims": list(claims)}}
    return Paper("P", families, results, published, book)


def verdicts(*arguments, **table):
    return [line[1].strip("*") for line in make_paper(*arguments, **table).judge("F")[1:]]


def test_p_of_a_family():
    """By Student's formula and Holm's procedure: p times the tests that are not smaller, also those not made."""
    noise = np.random.default_rng(0).normal(0, 1, (2, 8))
    gains = {"A": 1.5 + noise[0], "B": 0.3 + noise[1]}
    paper = make_paper(gains, claim(["A"], ["B"], ("psnr", "ssim")), claim(["C"], ["A"]))
    outcomes = paper.correct_family("F")
    found = {(pair.above, pair.below, pair.score): outcome.p for pair, outcome in outcomes.items()}
    differences = {
        ("A", "B", "psnr"): gains["A"] - gains["B"],
        ("A", "B", "ssim"): gains["A"] - gains["B"],
        ("A", "cubic", "psnr_dc"): gains["A"] - 0.2,
        ("B", "cubic", "psnr_dc"): gains["B"] - 0.2,
    }
    t = {key: abs(d.mean()) / (d.std(ddof=1) / np.sqrt(8)) for key, d in differences.items()}
    p = {key: 2 * stats.t.sf(value, 7) for key, value in t.items()} | dict.fromkeys(found.keys() - t.keys(), 1.0)
    assert len(p) == len(found) == 6
    for key in p:
        smaller = [other for other in p if p[other] <= p[key]]
        steps = [p[other] * sum(p[each] >= p[other] - 1e-12 for each in p) for other in smaller]
        assert found[key] == pytest.approx(min(1.0, max(steps)), rel=1e-6), key
    line = paper.judge("F")[1]
    d = differences["A", "B", "psnr"].mean()
    assert line[2] == f"{d:+.2f}, {d / 100:+.3f}" and paper.judge("F")[0][3] == "p of 6"
    assert 0 <= float(line[3]) - found["A", "B", "psnr"] < 0.001


def test_verdicts():
    gains = {"A": 2 + STEPS, "B": 1 - STEPS, "C": 1 + 30 * STEPS}
    all_of = [claim(["A"], ["B"]), claim(["B"], ["A"]), claim(["C"], ["B"]), claim(["A"], ["B", "C"])]
    eye = {"says": "seen", "undecidable": "judged by eye"}
    unknown = "not decidable here: "
    known = ["holds", "does not hold", f"{unknown}not sure", f"{unknown}not sure", f"{unknown}judged by eye"]
    assert verdicts(gains, *all_of, eye) == known
    missing = [f"{unknown}not trained", f"{unknown}B: not trained"]
    assert verdicts({**gains, "B": None}, all_of[0], all_of[3]) == missing
    few = make_paper(gains, all_of[0])
    few.lines["T", "B"] = few.lines["T", "B"][:4]
    assert few.judge("F")[1][1] == f"{unknown}4 people are too few"
    paper = make_paper({"A": [1.9, 1.8, 1.9, 5, 5, 5, 5, 5], "B": 2})  # above on the other scanners only
    outcome = paper.compare(Comparison("T", "A", "B", "psnr"))
    assert outcome.difference > 0 and not outcome._replace(p=0).is_sure(1)


def test_what_did_not_learn_is_in_nothing():
    pair, gains = claim(["A"], ["B"]), {"A": 2 + STEPS, "B": -0.9 - STEPS}
    assert verdicts(gains, pair) == ["holds"]
    paper = make_paper({**gains, "B": -1.1}, pair)
    assert paper.judge("F")[1][1:] == ["not decidable here: did not learn", "–", "–"]
    said = "**1 of 3 rows can be compared with data consistency alone, 1 are surely above it."
    assert paper.summarize() == f"{said} Conclusions: 0 hold, 0 do not, 1 are not decidable here.**"
    assert verdicts({**gains, "twin": 0.49}, pair) == ["not decidable here: supervised twin did not learn"]
    assert verdicts({**gains, "twin": None}, pair) == ["not decidable here: supervised twin not trained"]
    assert verdicts({**gains, "twin": None}, pair, twin=["T", "A"]) == ["holds"]
    assert verdicts(gains, pair, start=["T", "cubic"]) == ["not decidable here: did not learn"]
    below = {"paper": "P", "table": "T", "row": "B", "psnr": "29", "cubic_psnr": "30"}  # in the paper, too
    assert verdicts(gains, pair, start=["T", "cubic"], published=[below]) == ["holds"]
    assert "so of no help: B (T). Conclusions: 1 hold, 0 do not, 0 " in make_paper(gains, pair).summarize()


def test_a_table():
    stated = [{"paper": "P", "table": "T", "row": "A", "psnr": "33.014", "cubic_psnr": "31.5"}]
    paper = make_paper({"A": 1}, published=stated)
    paper.lines["T", "A"] += [*lines("A", 2, seed=1), *lines("A", 3, seed=2)]
    paper.lines["T", "C"] = [*lines("C", 1), *lines("C", 2, seed=1)]
    head, cubic, *_, a, b, c = paper.make_table("T")
    assert head == ["T", "paper", "gain", "same scanner (3)", "DC", "other scanners (5)", "DC", "seeds", "training"]
    assert cubic == ["cubic", "–", "–", "23.00", "+0.30", "35.00", "+0.30", "1", "–"]
    assert a == ["A", "33.01", "+1.51", "+2.00±1.00", "+2.10±1.00", "+2.00±1.00", "+2.10±1.00", "3", "9"]
    assert b == ["B", *"––––––", "–", "3.0 h"] and c[3:] == ["+1.50", "+1.60", "+1.50", "+1.60", "2", "9"]
    rows = {row[2]: row[3:] for row in paper.list_rows()}
    assert rows["A"] == ["9 iterations", "3", "0.0", ""] and rows["B"] == ["not trained", "0", "3.0", ""]


def test_the_papers_rows_are_those_of_the_queue():
    """Each row of a table is in the queue, or is another table's; so are baselines, starts and twins."""
    book = read_book((QUEUE / "rows.json").read_text())
    for name, content in json.loads((QUEUE / "claims.json").read_text()).items():
        paper = Paper(name, content["families"], [], read_lines(QUEUE / "published.csv"), book)
        queued = {(each["table"], row) for each in paper.book for row in list_labels(each)}
        shown = {table for each in paper.families.values() for table in each.get("lacking", {})}
        for setting, known in paper.settings.items():
            needed = {paper.locate(setting, row) for row in (*BASELINES, *known["rows"])}
            needed |= {tuple(known["start"]), tuple(known.get("twin", known["start"]))}
            assert needed <= queued, setting
            shown.add(known.get("published", setting))
        assert {table for table, _ in paper.published} == shown - {"adaptation", "adaptation, scanners"}
        for pair in (pair for family in paper.families for pair in paper.list_family(family)):
            assert {pair.above, pair.below} <= {*BASELINES, *paper.settings[pair.setting]["rows"]}


def test_pages_are_those_of_the_script():
    """Of the lines of results that were there when it ran."""
    count = int(re.search(r"From (\d+) lines", (LIST / "papers.md").read_text(encoding="utf-8"))[1])
    for folder, (tables, written) in recompute(read_lines(QUEUE / "results.csv")[:count]).items():
        pages = [page.read_text(encoding="utf-8") for page in folder.glob("*.md")]
        assert pages == [fill_page(page, tables, written) for page in pages]
        for name, table in tables.items():
            with (folder / name).open(newline="", encoding="utf-8") as file:
                assert list(csv.reader(file)) == table, name
            assert any(name in page for page in pages), name


def test_the_picture_shows_each_person_and_seed():
    cubic = [*lines("cubic", 0)]
    rows = {"x": [*lines("x", 1), *lines("x", 1.5 + STEPS, seed=1)], "y": [*lines("y", -1)]}
    (axes,) = draw_adaptation(cubic, rows).axes
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    np.testing.assert_allclose(heights, [[*(1.25 + STEPS / 2), 1.25], [-1] * 9], atol=1e-9)
    dots = [line.get_ydata() for line in axes.lines if line.get_marker() == "."]
    np.testing.assert_allclose(dots, [[1] * 9, [*(1.5 + STEPS), 1.5], [-1] * 9], atol=1e-9)
