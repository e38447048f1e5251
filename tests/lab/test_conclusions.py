"""What is concluded: of made-up results, and on the papers' pages."""

import csv
import json
import re

import numpy as np
import pytest
from scipy import stats

from common.lab.queue.__main__ import HERE, RESULTS, ROOT
from common.lab.queue.conclusions import Paper, compare, draw_gains, fill_page, read_lines, recompute
from common.lab.queue.units import Unit, read_book

PEOPLE = {f"p{i}": "same scanner" if i < 3 else "other scanners" for i in range(8)} | {"q": "untested"}


def claim(above, below):
    return {"says": f"{above} {below}", "source": "S", "table": "T", "score": "psnr", "above": above, "below": below}


def lines(row, gain, spread=0.08, seeds=5, draws=None):
    """Lines of results: a gain over cubic with a deviation of each seed, each person, and both."""
    draws = draws or np.random.default_rng(0)
    people = draws.normal(0, 0.1, len(PEOPLE))
    for seed in range(seeds):
        shift = draws.normal(0, spread)
        for i, (person, name) in enumerate(PEOPLE.items()):
            psnr = 20 + 3 * i + gain + (shift + people[i] + draws.normal(0, spread) if spread else 0)
            known = {"paper": "P", "table": "T", "row": row, "seed": str(seed), "set": name, "person": person}
            psnr = 99 if name == "untested" else psnr
            yield {**known, "psnr": str(psnr), "ssim": str(psnr / 100), "shift": "0.1", "iterations": "9"}


def make_paper(rows, *claims, missing=()):
    """A paper with rows ``{name: gain or lines}``, cubic, and a start 0.5 dB above it."""
    known = {"start": 0.5} | rows
    results = [*lines("cubic", 0, spread=0, seeds=1)]
    for row, each in known.items():
        results += lines(row, each, draws=np.random.default_rng(len(results))) if np.isscalar(each) else each
    row = {"paper": "P", "table": "T", "tested": ["same scanner", "other scanners"], "seeds": [0, 1, 2, 3, 4]}
    book = {"rows": [{**row, "row": name, **({"twin": ["T", "twin"]} if "twin" in rows else {})} for name in known]}
    return Paper(
        "P", {"families": {"F": claims}}, [line for line in results if (line["row"], line["seed"]) not in missing], book
    )


def count_sure(difference, draws, repeats):
    """How often A is surely other than B, where three other claims of the family are open."""
    rest = [claim(["A"], ["missing"])] * 3
    found = 0
    for _ in range(repeats):
        rows = {name: [*lines(name, gain, draws=draws)] for name, gain in (("A", 1 + difference), ("B", 1))}
        found += make_paper(rows, claim(["A"], ["B"]), *rest).judge("F")[0].verdict in ("holds", "does not hold")
    return found


def test_what_is_found_of_made_up_trainings():
    """Trainings of one method differ in at most one of twenty draws; 0.3 dB at a spread of 0.08 are found."""
    draws = np.random.default_rng(7)
    assert count_sure(0, draws, 200) <= 10
    assert count_sure(0.3, draws, 50) >= 40


def test_p_is_that_of_welch_over_seeds():
    draws = np.random.default_rng(1)
    means = draws.normal(0, 1, (2, 5))
    above, below = ({(s, p): value[s] + p for s in range(5) for p in (0, 1)} for value in means)
    found = compare(above, below)
    variance = means.var(axis=1, ddof=1) / 5
    t = (means[0].mean() - means[1].mean()) / np.sqrt(variance.sum())
    freedom = variance.sum() ** 2 / (variance**2 / 4).sum()
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), freedom))
    alone = compare(above, {(0, p): float(p) for p in (0, 1)})
    t = means[0].mean() / (means[0].std(ddof=1) / np.sqrt(5))
    assert alone.p == pytest.approx(2 * stats.t.sf(abs(t), 4))
    with pytest.raises(ValueError, match="single seed"):
        compare({(0, 0): 1.0}, {(0, 0): 2.0})


def test_verdicts():
    claims = [claim(["A"], ["B"]), claim(["B"], ["A"]), claim(["A"], ["B", "C"]), claim(["C"], ["A"])]
    rows = {"A": 2.0, "B": 1.5, "C": [*lines("C", 2.0, spread=2.0)]}
    judged = make_paper(rows, *claims).judge("F")
    assert [each.verdict for each in judged[:3]] == ["holds", "does not hold", "not sure"]
    scores = make_paper(rows).get_scores
    means = [
        [np.mean([v for (s, _), v in scores(("T", row)).items() if s == seed]) for seed in "01234"] for row in "AB"
    ]
    p = stats.ttest_ind(*means, equal_var=False).pvalue
    assert judged[0].p == pytest.approx(4 * p) and judged[1].p == pytest.approx(4 * p)
    said = make_paper(rows, *claims, missing={("B", "3")}).describe_claims("F")
    assert "**Open**: ['A'] ['B'] (S). Trainings that are missing: 1." in said
    low = {f"p{i}": -2.0 for i in (1, 5)}
    assert make_paper({**rows, "A": raised("A", 2.0, low)}, claims[0]).judge("F")[0].verdict == "not sure"


def raised(row, gain, by):
    """Lines in which some people gain more, or less."""
    return [line | {"psnr": str(float(line["psnr"]) + by.get(line["person"], 0.0))} for line in lines(row, gain)]


def test_p_and_people_are_those_of_one_comparison():
    """B is surely above A in the mean, for the sake of three people; C is not surely, in all people."""
    rows = {"A": [*lines("A", 2.0)], "B": raised("B", 1.9, {f"p{i}": 2.0 for i in range(3)})}
    rows["C"] = [*lines("C", 2.2, spread=1.0, draws=np.random.default_rng(3))]
    paper = make_paper(rows, claim(["A"], ["B", "C"]))
    b, c = paper._compare_rows(paper.content["families"]["F"][0])[0].values()
    assert b.p < 1e-3 and not b.is_shared and c.p > 0.1
    assert paper.judge("F")[0].verdict == "not sure"


def test_what_cannot_be_judged():
    pair, rows = claim(["A"], ["B"]), {"A": 2.0, "B": 1.0}
    nan = [line | {"psnr": "nan"} if line["seed"] == "2" else line for line in lines("B", 1.0)]
    for wrong, words in ((nan, "B has a psnr that is not finite"), ([*lines("B", 1.0)][:-2], "each of p0, p1")):
        with pytest.raises(ValueError, match=words):
            make_paper({**rows, "B": wrong}, pair).judge("F")
    assert make_paper({**rows, "twin": 0.4}, pair).judge("F")[0].verdict == "not decidable"
    assert make_paper({**rows, "twin": 0.7}, pair).judge("F")[0].verdict == "holds"


def test_the_better_of_start_and_cubic_stands_in_for_what_did_not_learn():
    judged = make_paper({"A": 0.6, "B": -3.0}, claim(["A"], ["B"])).judge("F")[0]
    assert judged.pair == ("A", "start") and judged.outcome.difference < 0.4
    judged = make_paper({"start": -1.0, "A": 0.6, "B": -3.0}, claim(["A"], ["B"])).judge("F")[0]
    assert judged.pair == ("A", "cubic") and judged.verdict == "holds"


def test_a_table_and_its_picture():
    rows = [line | {"seed": str(gain)} for gain in (1, 2, 3) for line in lines("A", gain, 0, 1)]
    paper = make_paper({"A": rows})
    head, cubic, _, row = paper.make_table("T")
    sets = ["same scanner (3)", "other scanners (5)", "untested (1)"]
    assert head == ["T, gain in dB", *sets, "SSIM", "largest shift", "seeds", "iterations"]
    assert row[4:] == ["+0.0200", "0.10", "3", "9"]
    assert cubic[:3] == ["cubic", "23.00", "35.00"] and row[:3] == ["A", "+2.00±1.00", "+2.00±1.00"]
    axes, same = draw_gains(paper, ["T", "T"]).axes
    for panel in (axes, same):
        assert panel.containers[1][0].get_height() == pytest.approx(2)
        _, seeds, *people, _ = (line.get_ydata() for line in panel.lines)
        np.testing.assert_allclose(seeds, [1, 2, 3])
        np.testing.assert_allclose([person[1] for person in people], [2] * 8)


def test_each_claim_has_its_rows_in_the_queue():
    book = read_book((HERE / "rows.json").read_text())
    for name, content in json.loads((HERE / "claims.json").read_text()).items():
        queued = {(row["table"], Unit(row, 0).label) for row in book["rows"] if row["paper"] == name}
        queued |= {(row["table"], "cubic") for row in book["rows"]}
        for each in (each for family in content["families"].values() for each in family):
            assert {(each["table"], row) for row in (*each["above"], *each["below"])} <= queued, each["says"]


def test_pages_are_those_of_the_script():
    """Of the lines of results that were there when it ran."""
    page = (ROOT / "bundles/udean/docs/results.md").read_text(encoding="utf-8")
    count = int(re.search(r"From (\d+) lines", page)[1])
    for folder, (_, tables, written) in recompute(read_lines(RESULTS)[:count]).items():
        pages = [page.read_text(encoding="utf-8") for page in folder.glob("*.md")]
        assert pages == [fill_page(page, tables, written) for page in pages]
        for name, table in tables.items():
            with (folder / name).open(newline="", encoding="utf-8") as file:
                assert list(csv.reader(file)) == table, name
            assert any(name in page for page in pages), name
