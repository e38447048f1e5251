import pytest
import torch

from common.runtime import threads


@pytest.fixture(autouse=True)
def nobody_says(monkeypatch):
    for name in threads._SAID:
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(8)


@pytest.mark.parametrize(
    ("of_8", "of_4", "of_2", "chosen"), [(0.15, 0.3, 0.6, 8), (1.4, 0.3, 0.6, 8), (9, 0.3, 0.6, 4), (9, 9, 9, 1)]
)
def test_threads_that_are_slower_than_one_are_not_used(monkeypatch, capsys, of_8, of_4, of_2, chosen):
    """Seconds of a trial, which may be off by some tenths; one core that is busy makes all eight slow."""
    monkeypatch.setattr(threads, "_measure_seconds", lambda count, limit: {8: of_8, 4: of_4, 2: of_2, 1: 1.0}[count])
    threads.choose_threads()
    said = capsys.readouterr().out
    assert torch.get_num_threads() == chosen
    assert said.startswith(f"{chosen} of 8 threads compute") if chosen < 8 else not said


@pytest.mark.parametrize("name", threads._SAID)
def test_what_is_said_stays(monkeypatch, name):
    monkeypatch.setenv(name, "passive")
    monkeypatch.setattr(threads, "_measure_seconds", lambda count, limit: float(count))
    threads.choose_threads()
    assert torch.get_num_threads() == 8


def test_a_trial_ends_when_it_is_too_slow(monkeypatch):
    """After one convolution that counts; the first does not."""
    calls, convolve = [], torch.nn.functional.conv2d
    monkeypatch.setattr(threads.F, "conv2d", lambda *args, **kw: calls.append(0) or convolve(*args, **kw))
    assert threads._measure_seconds(1, 0.0) > 0 and len(calls) == 2
    threads._measure_seconds(1, float("inf"))
    assert len(calls) == 2 + 1 + threads._REPEATS
