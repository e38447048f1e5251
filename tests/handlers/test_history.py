"""The history of losses, the curves that are drawn from it, and what a run says of its length."""

import logging
import sys
import time
from types import SimpleNamespace

import pytest
from ignite.engine import Engine, Events
from matplotlib.image import imread

from common.handlers import Forecast, LossHistory, history
from common.runtime.late_losses import LossEvents
from common.runtime.progress import ProgressBar, format_duration


def read_losses_at_once(engine):
    def read():
        engine.state.losses_of = engine.state.iteration
        engine.fire_event(LossEvents.LOSSES_READ)

    engine.register_events(*LossEvents)
    engine.add_event_handler(Events.ITERATION_COMPLETED, read)


def train(path, fails=False, done=0):
    """The lines that a training leaves: 2 epochs of 3 iterations, or those after ``done``; the last may fail."""

    def step(engine, batch):
        if fails and engine.state.iteration == 6:
            raise FloatingPointError("not finite")
        return [{"generator/l1": 1 / engine.state.iteration, "loss": 1.0}]

    engine = Engine(step)
    engine.add_event_handler(Events.STARTED, lambda: vars(engine.state).update(epoch=done, iteration=3 * done))
    read_losses_at_once(engine)
    LossHistory(path).attach(engine)
    logging.getLogger().addHandler(handler := logging.StreamHandler(sys.stdout))
    seen = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(handler in logging.getLogger().handlers))
    try:
        engine.run(range(3), max_epochs=2)
    finally:
        assert not any(seen), "lines of a log are written above the bar"
        assert handler in logging.getLogger().handlers
        logging.getLogger().removeHandler(handler)
    return len(path.read_text().splitlines())


def test_the_curves_are_drawn_when_the_training_completes(tmp_path):
    path, picture = tmp_path / "history_2.jsonl", tmp_path / "losses_2.png"
    with pytest.raises(FloatingPointError):
        train(path, fails=True)
    assert len(path.read_text().splitlines()) == 5 and not picture.exists()
    assert train(path, done=1) == 6 and imread(picture).std() > 0.05
    # A stage that is resumed when it is finished writes nothing and leaves the picture alone.
    picture.write_text("as it was")
    assert train(path, done=2) == 6 and picture.read_text() == "as it was"
    train(tmp_path / "history.jsonl")
    assert {p.name for p in tmp_path.iterdir()} == {"history_2.jsonl", "losses_2.png", "history.jsonl", "losses.png"}


def test_the_time_that_is_left_follows_the_pace_after_the_first_iterations(tmp_path, monkeypatch):
    """The first ones take 9 s each, the others 2 s."""
    now, told, engine = [0.0], [], Engine(lambda engine, batch: [{"generator/l1": 1.0, "loss": 1.0}])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(ProgressBar, "show_seconds_left", lambda bar, left: told.append((bar.what, left)))
    read_losses_at_once(engine)
    LossHistory(tmp_path / "history.jsonl").attach(engine)
    engine.add_event_handler(
        Events.ITERATION_STARTED, lambda: now.append(now.pop() + (9 if engine.state.iteration <= 5 else 2))
    )
    engine.run(range(10), max_epochs=2)
    assert [left for _, left in told[5:]] == [2.0 * (20 - i) for i in range(6, 21)]
    assert all(left != left for _, left in told[:5]) and told[9][0] == "training, iteration 10 of 20"


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
        ({"epochs": 1, "length": 30, "validation": 600.0}, (5, "0.5", "10 s, and 1 validation", "10 s", "10 s"), ()),
    ],
    ids=["time", "at most", "validated afterwards", "in between", "measured anew", "slow", "short", "one validation"],
)
def test_what_a_run_says(monkeypatch, capsys, changes, numbers, later):
    """Its first iterations take 5 s, the others 2 s, unless all are slow."""
    run, now = SimpleNamespace(**RUN | changes), [0.0]
    monkeypatch.setattr(history, "time", SimpleNamespace(monotonic=lambda: now[0]))

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
    expected += ["2: a validation takes 10 min."] * (later == ())
    assert capsys.readouterr().out.splitlines() == expected


def test_durations():
    seconds = (0.4, 89, 90, 3599, 12000, 47 * 3600 + 59 * 60, 187200)
    texts = ["0 s", "89 s", "1 min 30 s", "1 h 0 min", "3 h 20 min", "47 h 59 min", "2 d 4 h"]
    assert [format_duration(number) for number in seconds] == texts
