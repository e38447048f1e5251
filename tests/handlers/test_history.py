"""The history of losses, the curves that are drawn from it, and the progress bar."""

import io
import logging
import sys

import pytest
from ignite.engine import Engine, Events
from matplotlib.image import imread
from tqdm import tqdm

from common.handlers import LossHistory, history
from common.runtime.progress import format_duration


def train(path, fails=False, done=0):
    """The lines that a training leaves: 2 epochs of 3 iterations, or those after ``done``; the last may fail."""

    def step(engine, batch):
        if fails and engine.state.iteration == 6:
            raise FloatingPointError("not finite")
        return [{"generator/l1": 1 / engine.state.iteration, "loss": 1.0}]

    engine = Engine(step)
    engine.add_event_handler(Events.STARTED, lambda: vars(engine.state).update(epoch=done, iteration=3 * done))
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


@pytest.mark.parametrize("done", [0, 1])
def test_the_bar_counts_the_iterations_of_all_epochs(tmp_path, monkeypatch, done):
    """From where a training is resumed."""
    bars = []

    def make(**options):
        bars.append(tqdm(file=io.StringIO(), **options))
        return bars[0]

    monkeypatch.setattr(history, "make_bar", lambda what, **options: make(desc=what, **options))
    train(tmp_path / "history.jsonl", done=done)
    assert (bars[0].initial, bars[0].n, bars[0].total) == (3 * done, 6, 6) and len(bars) == 1


def test_durations():
    seconds = (0.4, 89, 90, 3599, 12000, 47 * 3600 + 59 * 60, 187200)
    texts = ["0 s", "89 s", "1 min 30 s", "1 h 0 min", "3 h 20 min", "47 h 59 min", "2 d 4 h"]
    assert [format_duration(number) for number in seconds] == texts
