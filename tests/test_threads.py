"""How many threads are chosen, from what they take."""

import pytest
import torch

from common import threads


@pytest.fixture(autouse=True)
def nobody_says(monkeypatch):
    for name in threads._SAID:
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(8)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({8: 0.15, 4: 0.3, 2: 0.6, 1: 1.0}, 8),  # nothing else runs
        ({8: 1.4, 4: 0.3, 2: 0.6, 1: 1.0}, 8),  # within what a trial may be off
        ({8: 9.0, 4: 0.3, 2: 0.6, 1: 1.0}, 4),  # one core is busy
        ({8: 9.0, 4: 9.0, 2: 9.0, 1: 1.0}, 1),
    ],
)
def test_threads_that_are_slower_than_one_are_not_used(monkeypatch, capsys, seconds, chosen):
    monkeypatch.setattr(threads, "_seconds", lambda count, limit: seconds[count])
    threads.settle()
    said = capsys.readouterr().out
    assert torch.get_num_threads() == chosen
    assert said.startswith(f"{chosen} of 8 threads compute") if chosen < 8 else not said


@pytest.mark.parametrize("name", threads._SAID)
def test_what_is_said_stays(monkeypatch, name):
    monkeypatch.setenv(name, "passive")
    monkeypatch.setattr(threads, "_seconds", lambda count, limit: float(count))
    threads.settle()
    assert torch.get_num_threads() == 8


def test_a_trial_ends_when_it_is_too_slow(monkeypatch):
    calls = []
    convolve = torch.nn.functional.conv2d
    monkeypatch.setattr(threads.F, "conv2d", lambda *args, **kw: calls.append(0) or convolve(*args, **kw))
    assert threads._seconds(1, 0.0) > 0 and len(calls) == 2  # one that is not counted
    calls.clear()
    threads._seconds(1, float("inf"))
    assert len(calls) == 1 + threads._REPEATS
