"""What a run says of its length: measured, once, with and without validation."""

from types import SimpleNamespace

import pytest
from ignite.engine import Engine, Events

from common.handlers import Forecast, forecast
from common.runtime.progress import duration

RUN = dict(epochs=10, length=400, minutes=5, validation=0.0, interval=1, done=0, slow=None, stop=None)
FIVE_VALIDATIONS = {"length": 30, "validation": 600.0, "interval": 2}
SAID = "2: {} iterations at {} a second are left, {}. First checkpoint in {}, end of the epoch in {}. Weights go to W."
LATER = "2: a validation takes {}; with {} more, {} are left."


@pytest.mark.parametrize(
    ("changes", "numbers", "later"),
    [
        ({}, (3975, "0.5", "2 h 12 min", "5 min", "12 min"), None),
        ({"minutes": None, "stop": 1e-6}, (3975, "0.5", "at most 2 h 12 min", "12 min", "12 min"), None),
        (FIVE_VALIDATIONS, (275, "0.5", "9 min 10 s, and 5 validations", "10 s", "10 s"), ("10 min", 4, "48 min")),
        ({"epochs": 5, "length": 10, "validation": 600.0}, (25, "0.5", "31 min", "10 s", "10 s"), None),
        ({"minutes": 0, "done": 3600}, (375, "0.5", "12 min", "0 s", "12 min"), None),
        ({"epochs": 1, "length": 42, "slow": 90.0}, (40, "0.0111", "1 h 0 min", "5 min", "1 h 0 min"), None),
        ({"epochs": 2, "length": 12}, None, None),
    ],
    ids=["time", "at most", "validated afterwards", "in between", "measured anew", "slow", "short"],
)
def test_what_a_run_says(monkeypatch, capsys, changes, numbers, later):
    """Its first iterations take 5 s, the others 2 s, unless all are slow."""
    run, now = SimpleNamespace(**RUN | changes), [0.0]
    monkeypatch.setattr(forecast, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def step(engine, batch):
        now[0] += run.slow or (5.0 if engine.state.iteration <= run.done + 5 else 2.0)

    engine, evaluator = Engine(step), Engine(lambda *_: now.append(now.pop() + run.validation))
    engine.players = {"one": SimpleNamespace(stop_below=run.stop)}
    resumed = {"iteration": run.done, "epoch": run.done // run.length}
    engine.add_event_handler(Events.STARTED, lambda: vars(engine.state).update(resumed))
    Forecast("2", "W", run.minutes, evaluator if run.validation else None, run.interval).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED(every=run.interval), lambda: evaluator.run([0]))
    engine.run(range(run.length), max_epochs=run.epochs, epoch_length=run.length)
    expected = [line.format(*found) for line, found in ((SAID, numbers), (LATER, later)) if found]
    assert capsys.readouterr().out.splitlines() == expected


def test_durations():
    seconds = (0.4, 89, 90, 3599, 12000, 47 * 3600 + 59 * 60, 187200)
    texts = ["0 s", "89 s", "1 min 30 s", "1 h 0 min", "3 h 20 min", "47 h 59 min", "2 d 4 h"]
    assert [duration(number) for number in seconds] == texts
