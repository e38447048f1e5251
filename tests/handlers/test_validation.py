from unittest.mock import Mock

import pytest
from ignite.engine import Engine
from monai.engines import Evaluator

from common.handlers import ValidationWithInitial


@pytest.mark.parametrize(("epochs", "interval", "after"), [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (2, 3, [2])])
def test_it_validates_every_few_epochs_the_last_and_what_the_training_starts_from(epochs, interval, after):
    for initial, before in ((None, []), ("model.pt", [1])):
        validator = Mock(spec=Evaluator)
        handler = ValidationWithInitial(initial, interval=interval, validator=validator)
        engine = Engine(lambda engine, batch: None)
        handler.attach(engine)
        engine.run([0, 0], max_epochs=epochs)
        assert [call.args[0] for call in validator.run.call_args_list] == before + after
