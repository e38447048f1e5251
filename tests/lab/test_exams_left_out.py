import csv
import json
from pathlib import Path

import numpy as np
import pytest

from common.lab.queue import exams_left_out
from common.lab.queue.coherence import measure_coherence
from common.lab.queue.exams_left_out import judge_stacks, summarise

QUEUE = Path(exams_left_out.__file__).parent


def test_coherence_is_of_what_is_shared_whatever_its_power():
    """Weaker images, unrelated ones, those that share one direction alone, and frequencies that are not there."""
    random, spacing, there = np.random.default_rng(0), np.array([1.0, 2.0]), np.ones((64, 64, 3), dtype=bool)
    stack, other = random.standard_normal((2, 64, 64, 3))
    for found in measure_coherence(stack, 0.5 * stack + 3, there, spacing, (0.1, 0.2)):
        assert found == pytest.approx((1, 0.25))
    found = np.array(measure_coherence(stack, other, there, spacing, (0.1, 0.2)))
    assert np.abs(found[:, 0]).max() < 0.2 and np.allclose(found[:, 1], 1, atol=0.3)
    spectra = [np.fft.fft(each, axis=1) for each in (stack, other)]
    high = np.abs(np.fft.fftfreq(64, 2))[None, :, None] > 0.08  # cycles/mm along the second axis
    mixed = np.fft.ifft(np.where(high, spectra[1], spectra[0]), axis=1).real
    first, _, second = (each for each, _ in measure_coherence(stack, mixed, there, spacing, (0.1, 0.2)))
    assert first > 0.95 and abs(second) < 0.3
    assert np.isnan(measure_coherence(stack, stack, there, spacing, (0.6, 0.8))).all()


def test_a_person_counts_once_over_cubic_and_planes_apart():
    rows = [
        {"person": person, "exam": exam, "left_out": "a", "plane": plane, "result": name, "slices": "9"}
        | {"psnr": value, "coherence": value if exam != "3" else ""}
        for person, exam, plane, gain in (
            *(("anna", "1", "another", 0.1), ("anna", "2", "the same", 0.3)),
            ("ben", "3", "another", -0.4),
        )
        for name, value in (("cubic", "0.5"), ("ct_guided", str(0.5 + gain)))
    ]
    (found,) = summarise(rows)
    assert found == {
        **{"method": "ct_guided", "stacks": "3", "slices": "27"},
        **{"psnr, another plane": "-0.150±0.354, 1 of 2", "coherence, another plane": "+0.100, 1 of 1"},
        **{"psnr, the same plane": "+0.300, 1 of 1", "coherence, the same plane": "+0.300, 1 of 1"},
    }


@pytest.mark.parametrize("name", ["exams_left_out", "exams_simulated", "exams_moved", "adaptation"])
def test_means_are_of_the_rows(name):
    means = {"exams_left_out": "exams"}.get(name, name) + "_over_cubic.csv"
    with (QUEUE / f"{name}.csv").open() as rows, (QUEUE / means).open() as table:
        found = [{key: value for key, value in row.items() if value} for row in csv.DictReader(table)]
        assert found == summarise([*csv.DictReader(rows)])


def test_what_is_no_exam_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["exams_left_out", "--exams", str(tmp_path), "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        exams_left_out.main()
    assert "expected folders with an exam.json" in capsys.readouterr().err
    (tmp_path / "exam.json").write_text('{"person": "anna", "body": "head", "stacks": {"a": 1}}')
    with pytest.raises(ValueError, match="fewer than two stacks"):
        judge_stacks([tmp_path], tmp_path, tmp_path / "t.csv", tmp_path / "m.csv")
    assert [*tmp_path.iterdir()] == [tmp_path / "exam.json"]


def test_a_stack_that_cannot_be_judged_stops_no_other_and_none_is_judged_twice(tmp_path, monkeypatch):
    def judge_stack(exam, left_out, source, others, *_):
        judged.append((left_out, source, others))
        if left_out == "b":
            raise ValueError("it does not fit")
        return [{"result": name, "plane": "another", "slices": "9", "psnr": "20"} for name in ("cubic", "ours")]

    monkeypatch.setattr(exams_left_out, "judge_stack", judge_stack)
    (tmp_path / "exam.json").write_text(json.dumps({"person": "anna", "body": "head", "stacks": dict.fromkeys("abc")}))
    for expected in (
        [("a", "b", ["b", "c"]), ("b", "c", ["a", "c"]), ("c", "a", ["a", "b"])],
        [("b", "c", ["a", "c"])],
    ):
        judged = []
        with pytest.raises(SystemExit, match=", b from c: it does not fit"):
            judge_stacks([tmp_path], tmp_path, tmp_path / "t.csv", tmp_path / "m.csv", {"ours": {}})
        assert judged == expected
        assert (tmp_path / "t.csv").read_text().count("\n") == 5 and "ours,2,18" in (tmp_path / "m.csv").read_text()
