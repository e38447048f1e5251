"""What the ratings of a reader's page say, once its key is opened."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.kappa import compute_cohen_kappa, compute_fleiss_kappa, compute_wilson_interval
from ..reports.reader_page import QUESTIONS, Question
from .judgement import Rows
from .output import write_tables

_Key = Mapping[str, Mapping[str, str]]  # lines of the key, by the number of their pair
_Answers = dict[tuple[str, str], int]  # by pair and question, as if the first method by name was on the left


def judge_ratings(ratings: Sequence[str], key: str, output_dir: Path, report: bool) -> None:
    """Open the key of a reader's page, and write what its readers prefer and how far they agree.

    Args:
        ratings: files that readers saved.
        key: the file that came with the page.
        output_dir: folder of ``preferences.csv`` and ``agreement.csv``.
        report: whether to write a page of both.

    Raises:
        FileNotFoundError, ValueError: when a file is missing, is no such table, or belongs to another page; or two
            have one reader.
    """
    lines = _read_lines(key, "--key", ("study", "pair", "person", "left", "right", "repeats"))
    shown = {line["pair"]: line for line in lines}
    readers: dict[str, _Answers] = {}
    for file in ratings:
        lines = _read_lines(file, "--ratings", ("study", "reader", "pair", "question", "answer"))
        reader = lines[0]["reader"]
        if reader in readers:
            raise ValueError(f"judge: --ratings {file}: its reader {reader} has a file before it; name one of them.")
        readers[reader] = _read_answers(file, lines, shown)
    tables = (
        ("preferences", "Which method do the readers prefer?", _PREFERENCES, _count_preferences(readers, shown)),
        ("agreement", "How far do the readers agree?", _AGREEMENT, _measure_agreement(readers, shown)),
    )
    write_tables(output_dir, [(*table, (), {}) for table in tables], report)


def _read_lines(file: str, option: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table that has these columns."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"judge: {option} {file}: there is no such file.")
    with Path(file).open(newline="", encoding="utf-8-sig") as table:
        reader = csv.DictReader(table)
        lines = list(reader)
    if not lines or not {*columns} <= {*(reader.fieldnames or ())}:
        raise ValueError(
            f"judge: {option} {file} has {len(lines)} lines under {', '.join(reader.fieldnames or ['nothing'])}; "
            f"expected the columns {', '.join(columns)}, as --readers and its page write them."
        )
    return lines


def _read_answers(file: str, lines: Sequence[Mapping[str, str]], shown: _Key) -> _Answers:
    """The places of a reader's answers among those of their question."""
    answers: _Answers = {}
    study = next(iter(shown.values()))["study"]
    questions = {question.name: question for question in QUESTIONS}
    for number, line in enumerate(lines, 2):
        if line["study"] != study:
            raise ValueError(
                f"judge: --ratings {file} was rated on the page {line['study']}, but the key is of {study}; name the "
                "key of that page."
            )
        pair, question = shown.get(line["pair"]), questions.get(line["question"])
        if pair is None or question is None or line["answer"] not in question.answers:
            raise ValueError(
                f"judge: --ratings {file}, line {number}: pair {line['pair']}, {line['question']}: {line['answer']} is "
                "no answer of the page; have the reader save the file again."
            )
        answer = line["answer"]
        if pair["left"] > pair["right"]:
            side, *how = answer.split(", ")
            answer = ", ".join([{"left": "right", "right": "left"}.get(side, side), *how])
        answers[line["pair"], line["question"]] = question.answers.index(answer)
    return answers


def _merge_sides(question: Question) -> tuple[list[str], np.ndarray]:
    """The answers without how clear they are, and the place of each answer among them."""
    sides = [answer.split(", ")[0] for answer in question.answers]
    merged = list(dict.fromkeys(sides))
    return merged, np.array([merged.index(side) for side in sides])


def _count_preferences(readers: Mapping[str, _Answers], shown: _Key) -> Rows:
    """The share of each answer to each question about each two methods; pairs that come again do not count."""
    rows: Rows = []
    for first, second in sorted({(min(k["left"], k["right"]), max(k["left"], k["right"])) for k in shown.values()}):
        pairs = [n for n, k in shown.items() if {k["left"], k["right"]} == {first, second} and not k["repeats"]]
        for question in QUESTIONS:
            sides, place = _merge_sides(question)
            persons: dict[str, list[int]] = defaultdict(list)
            for answers, pair in ((answers, pair) for answers in readers.values() for pair in pairs):
                if (code := answers.get((pair, question.name))) is not None:
                    persons[shown[pair]["person"]].append(place[code])
            for i, side in enumerate(sides if persons else ()):
                share = float(np.mean([np.mean(np.array(given) == i) for given in persons.values()]))
                low, high = compute_wilson_interval(share, len(persons))
                answer = {"left": first, "right": second}.get(side, side)
                row: dict[str, Any] = {"question": question.name, "first": first, "second": second, "answer": answer}
                row |= {"percent": 100 * share, "from": 100 * low, "to": 100 * high, "persons": len(persons)}
                rows.append(row | {"ratings": sum(map(len, persons.values()))})
    return rows


def _measure_agreement(readers: Mapping[str, _Answers], shown: _Key) -> Rows:
    """Kappa of each two readers, of each reader with what he said before, and of all if there are three."""
    once = [pair for pair, line in shown.items() if not line["repeats"]]
    again = [(pair, line["repeats"]) for pair, line in shown.items() if line["repeats"]]
    rows: Rows = []
    for question in QUESTIONS:
        name, kind = question.name, "Cohen, linear weights" if question.is_ordinal else "Cohen"
        groups = {
            f"{a} and {b}": [(readers[a].get((pair, name)), readers[b].get((pair, name))) for pair in once]
            for a, b in combinations(readers, 2)
        }
        groups |= {f"{a} again": [(o.get((p, name)), o.get((q, name))) for p, q in again] for a, o in readers.items()}
        for who, given in groups.items():
            codes = _keep_complete(given, 2)
            kappa = compute_cohen_kappa(codes[:, 0], codes[:, 1], len(question.answers), question.is_ordinal)
            rows.append({"question": name, "readers": who, "kind": kind, "kappa": kappa, **_count_same(codes)})
        if len(readers) > 2:
            sides, place = _merge_sides(question)
            by_all = [[answers.get((pair, name)) for answers in readers.values()] for pair in once]
            codes = place[_keep_complete(by_all, len(readers))]
            kappa = compute_fleiss_kappa(np.stack([(codes == i).sum(axis=1) for i in range(len(sides))], axis=1))
            rows.append({"question": name, "readers": "all", "kind": "Fleiss", "kappa": kappa, **_count_same(codes)})
    return rows


def _keep_complete(given: Sequence[Sequence[int | None]], count: int) -> np.ndarray:
    """The pairs that all rated, shape (pairs, count)."""
    return np.array([each for each in given if None not in each], dtype=int).reshape(-1, count)


def _count_same(codes: np.ndarray) -> dict[str, Any]:
    same = (codes == codes[:, :1]).all(axis=1)
    return {"same_answer": 100 * float(same.mean()) if len(codes) else float("nan"), "pairs": len(codes)}


_ASKED = "; ".join(f"{question.name}: {question.text}" for question in QUESTIONS)
_PREFERENCES = {
    "question": _ASKED,
    "first": "a method: cubic for the scan's interpolation, else which of the results that were named; the key has "
    "the files",
    "second": "the method that it was shown with",
    "answer": "the method that was chosen, clearly or not, or another answer",
    "percent": "share of this answer: the mean over persons of the share among their planes and readers; pairs that "
    "come again do not count",
    "from": "its 95 % interval by Wilson, one person one unit",
    "to": "its other end",
    "persons": "number of persons whose pictures were rated",
    "ratings": "number of ratings",
}
_AGREEMENT = {
    "question": _ASKED,
    "readers": "two readers; one again, on the pairs that came twice; or all",
    "kind": "Cohen's kappa, with linear weights where answers go in steps; for all Fleiss' kappa, clearly or not",
    "kappa": "1: full agreement, 0: that of chance; empty when all answers are the same",
    "same_answer": "percent of the pairs with the same answer",
    "pairs": "number of pairs that all of them rated",
}
