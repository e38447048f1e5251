import json

import numpy as np
import pytest

from common.lab.queue import exams_left_out
from common.lab.queue.coherence import measure_coherence
from common.lab.queue.exams_left_out import judge_stacks, summarise


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
    found = {"method": "ct_guided", "stacks": "3", "slices": "27", "psnr": "-0.100±0.424, 1 of 2"}
    found |= {"coherence, another plane": "+0.100, 1 of 1", "coherence, the same plane": "+0.300, 1 of 1"}
    assert summarise(rows) == [found]


def test_a_stack_that_cannot_be_judged_stops_no_other_and_none_is_judged_twice(tmp_path, monkeypatch):
    def judge_stack(exam, left_out, source, others, *_):
        judged.append((left_out, source, others))
        if left_out == "b":
            raise ValueError("it does not fit")
        return [{"result": name, "slices": "9", "psnr": "20"} for name in ("cubic", "ours")]

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
