"""The history of losses, and the curves that are drawn from it."""

import logging
import sys
import time

import pytest
from ignite.engine import Engine, Events
from matplotlib.image import imread

from common.handlers import LossHistory
from common.runtime.late_losses import LossEvents
from common.runtime.progress import Bar


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
    monkeypatch.setattr(Bar, "tell", lambda bar, left: told.append((bar.what, left)))
    read_losses_at_once(engine)
    LossHistory(tmp_path / "history.jsonl").attach(engine)
    engine.add_event_handler(
        Events.ITERATION_STARTED, lambda: now.append(now.pop() + (9 if engine.state.iteration <= 5 else 2))
    )
    engine.run(range(10), max_epochs=2)
    assert [left for _, left in told[5:]] == [2.0 * (20 - i) for i in range(6, 21)]
    assert all(left != left for _, left in told[:5]) and told[9][0] == "training, iteration 10 of 20"
