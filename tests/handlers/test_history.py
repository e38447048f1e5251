"""The history of losses, and the curves that are drawn from it."""

import pytest
from ignite.engine import Engine, Events
from matplotlib.image import imread

from common.handlers import LossHistory


def training(path, fail=False, done=0):
    """An engine with 2 epochs of 3 iterations, which fails in the last or continues after ``done`` epochs."""

    def step(engine, batch):
        if fail and engine.state.iteration == 6:
            raise FloatingPointError("not finite")
        return {"generator/l1": 1 / engine.state.iteration}

    engine = Engine(step)

    @engine.on(Events.STARTED)
    def restore(engine):
        engine.state.epoch, engine.state.iteration = done, 3 * done

    LossHistory(path).attach(engine)
    return engine


def test_the_curves_are_drawn_when_the_training_completes(tmp_path):
    path, picture = tmp_path / "history_2.jsonl", tmp_path / "losses_2.png"
    with pytest.raises(FloatingPointError):
        training(path, fail=True).run(range(3), max_epochs=2)
    assert len(path.read_text().splitlines()) == 5 and not picture.exists()
    training(path, done=1).run(range(3), max_epochs=2)
    assert len(path.read_text().splitlines()) == 6 and imread(picture).std() > 0.05
    # A stage that is resumed when it is finished writes nothing and leaves the picture alone.
    picture.write_text("as it was")
    training(path, done=2).run(range(3), max_epochs=2)
    assert len(path.read_text().splitlines()) == 6 and picture.read_text() == "as it was"
    training(tmp_path / "history.jsonl").run(range(3), max_epochs=2)
    assert {p.name for p in tmp_path.iterdir()} == {"history_2.jsonl", "losses_2.png", "history.jsonl", "losses.png"}
