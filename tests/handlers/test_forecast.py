"""What a run says of its length: measured, once, with and without validation."""

from types import SimpleNamespace

import pytest
from ignite.engine import Engine, Events

from common.handlers import Forecast, forecast
from common.handlers.forecast import duration


def said_by(
    monkeypatch, capsys, epochs, length, minutes, validation=None, interval=1, done=0, stop_below=None, slow=None
):
    """Of a run whose first iterations take longer, the others 2 s, and whose validations take ``validation``."""
    now = [0.0]
    monkeypatch.setattr(forecast, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def step(engine, batch):
        now[0] += slow or (5.0 if engine.state.iteration <= done + 5 else 2.0)

    def validate(engine, batch):
        now[0] += validation

    engine, evaluator = Engine(step), Engine(validate)
    engine.players = {"one": SimpleNamespace(stop_below=stop_below)}

    @engine.on(Events.STARTED)
    def restore(engine):
        engine.state.iteration, engine.state.epoch = done, done // length

    Forecast("training 2", "W/models", minutes, evaluator if validation else None, interval).attach(engine)
    if validation:
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=interval), lambda: evaluator.run([0]))
    engine.run(range(length), max_epochs=epochs, epoch_length=length)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("run", "lines"),
    [
        (
            {"epochs": 10, "length": 400, "minutes": 5},
            ["3975 iterations at 0.5 a second are left, 2 h 12 min. First checkpoint in 5 min, end of the epoch in "
             "12 min. Weights go to W/models."],
        ),
        (
            {"epochs": 10, "length": 400, "minutes": None, "stop_below": 1e-6},
            ["3975 iterations at 0.5 a second are left, at most 2 h 12 min. First checkpoint in 12 min, end of the "
             "epoch in 12 min. Weights go to W/models."],
        ),
        (  # the first validation comes afterwards, and there are five
            {"epochs": 10, "length": 30, "minutes": 5, "validation": 600.0, "interval": 2},
            ["275 iterations at 0.5 a second are left, 9 min, and 5 validations. First checkpoint in 10 s, end of the "
             "epoch in 10 s. Weights go to W/models.",
             "a validation takes 10 min; with 4 more, 48 min are left."],
        ),
        (  # it comes in between, and is not taken for iterations
            {"epochs": 5, "length": 10, "minutes": 5, "validation": 600.0},
            ["25 iterations at 0.5 a second are left, 31 min. First checkpoint in 10 s, end of the epoch in 10 s. "
             "Weights go to W/models."],
        ),
        (  # a resumed run measures anew
            {"epochs": 10, "length": 400, "minutes": 0, "done": 3600},
            ["375 iterations at 0.5 a second are left, 12 min. First checkpoint in 0 s, end of the epoch in 12 min. "
             "Weights go to W/models."],
        ),
        (  # one iteration to warm up, one that is measured
            {"epochs": 1, "length": 42, "minutes": 5, "slow": 90.0},
            ["40 iterations at 0.0111 a second are left, 1 h 0 min. First checkpoint in 5 min, end of the epoch in "
             "1 h 0 min. Weights go to W/models."],
        ),
        ({"epochs": 2, "length": 12, "minutes": 5}, []),
    ],
    ids=["time", "at most", "validation later", "validation before", "resumed", "slow", "short"],
)  # fmt: skip
def test_what_a_run_says(monkeypatch, capsys, run, lines):
    assert said_by(monkeypatch, capsys, **run) == [f"training 2: {line}" for line in lines]


def test_durations():
    for seconds, text in ((0.4, "0 s"), (89, "89 s"), (100, "2 min"), (3599, "1 h 0 min"), (12000, "3 h 20 min")):
        assert duration(seconds) == text
    assert duration(187200) == "2 d 4 h" and duration(47 * 3600 + 59 * 60) == "47 h 59 min"
