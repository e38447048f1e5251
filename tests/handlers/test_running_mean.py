"""The running mean begins where the training begins."""

import torch
from ignite.engine import Engine
from torch import nn

from common.handlers import RunningMean


def test_the_mean_begins_with_weights_that_were_loaded_after_it_was_made():
    network = nn.Linear(1, 1, bias=False)
    mean = RunningMean(network, momentum=0.25)
    network.weight.data.fill_(8.0)  # as --initial does

    def step(engine, batch):
        network.weight.data.sub_(4)

    engine = Engine(step)
    mean.attach(engine)
    engine.run([0, 1], max_epochs=1)
    torch.testing.assert_close(mean.ema_model.weight.data, torch.tensor([[0.75 * (0.75 * 8 + 0.25 * 4)]]))
