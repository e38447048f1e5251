from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from ignite.engine import Engine
from monai.engines import Evaluator

from common.handlers import ValidationWithInitial


@pytest.mark.parametrize(("epochs", "interval", "after"), [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (2, 3, [2])])
def test_it_validates_every_few_epochs_the_last_and_what_the_training_starts_from(epochs, interval, after):
    for initial, before in ((None, 0), ("model.pt", 1)):
        validator, looked_at = Mock(spec=Evaluator, state=SimpleNamespace(metrics={"psnr": 30.0})), []
        validator.run.side_effect = lambda epoch, at=looked_at, of=validator: at.append((epoch, of.state.trained))
        handler = ValidationWithInitial(initial, interval=interval, validator=validator)
        engine = Engine(lambda engine, batch: None)
        handler.attach(engine)
        engine.run([0, 0], max_epochs=epochs)
        assert looked_at == [(1, 0)] * before + [(epoch, 2 * epoch) for epoch in after]
