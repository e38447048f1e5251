"""Iterations that are recorded as a CUDA graph train as others do; on a GPU that is simulated."""

import json
import os
import random
import signal
import socket
from functools import partial

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from common.engines import AlternatingTrainer, Player
from common.graph import TensorGraph
from common.losses import WarmUp
from common.networks import ImagePool
from tests import simulated_cuda
from tests.bundles import runs
from tests.engines.games import Batches, close_to

EPOCHS, LENGTH = 2, 8
ADAM = partial(torch.optim.Adam, lr=1e-2)
l1 = nn.L1Loss()


class Noisy(nn.Module):
    """Draws from the GPU's generator."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.convolution(x + 0.1 * torch.randn_like(x))


class Waiting(Noisy):
    def forward(self, x):
        return super().forward(x) * float(x.mean())


class Refusing(Noisy):
    """Does what a recording does not allow."""

    def forward(self, x):
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("not allowed\nin a recording")
        return super().forward(x)


class Counting(Noisy):
    """Counts in Python."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


class Replacing(Noisy):
    """Replaces a buffer in each of two calls an iteration."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean().detach()
        self.mean = 0.9 * self.mean + 0.1 * x.mean().detach()
        return super().forward(x) - self.mean


class Drawing(Noisy):
    """Draws on the processor."""

    def forward(self, x):
        return super().forward(x) * random.random()


class Renewed(WarmUp):
    """Its weight is a new tensor each time that it is looked at."""

    def get_value(self):
        return self.current + 0


class Spoilt(Batches):
    """The batch of iteration 13 is not finite."""

    def __iter__(self):
        for batch in super().__iter__():
            yield {key: value * (float("nan") if self.iteration == 13 else 1) for key, value in batch.items()}


class Cut(Batches):
    """Every third batch is smaller."""

    def __iter__(self):
        for batch in super().__iter__():
            yield {key: value[: len(value) - (self.iteration % 3 == 0)] for key, value in batch.items()}


COSINE = partial(CosineAnnealingLR, T_max=EPOCHS * LENGTH)


def trainer_of(
    folder, network=Noisy, optimizer=ADAM, schedule=WarmUp, batches=Batches, scheduler=COSINE, resume=False, **options
):
    random.seed(0)
    torch.manual_seed(0)
    wait = schedule(6)
    judge = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
    rows = {"l1": [1.0, l1, "fake", "hr"], "fool": [wait, close_to(1), "verdict"]}
    against = {"real": [1.0, close_to(1), "real"], "fake": [1.0, close_to(0), "judged"]}
    networks = {"net": network(), "judge": judge, "pool": ImagePool(7)}
    steps = {"fake": ["net", "lr"], "verdict": ["judge", "fake"], "real": ["judge", "hr"]}
    steps |= {"pooled": ["pool", "fake"], "judged": ["judge", "pooled"]}
    players = {
        "net": Player(["net"], optimizer, rows, iteration_scheduler=scheduler, clip_norm=0.5, schedule=wait),
        "judge": Player(["judge"], ADAM, against, steps=2),
    }
    graph = TensorGraph(networks, steps)
    options = {"device": torch.device("cuda"), "network": networks["net"], "amp": False, "cuda_graph": True, **options}
    options |= {"output_dir": folder, "resume": resume}
    return AlternatingTrainer(EPOCHS, batches(3, 1, 6, 5), graph, players, LENGTH, **options)


def trained(folder, recorded=True, **options):
    trainer = trainer_of(folder, **options)
    trainer.late = []  # by how many iterations

    def look():
        assert trainer.state.output[0]["loss"] > 0
        trainer.late.append(trainer.state.iteration - trainer.state.losses_of)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    trainer.run()
    assert trainer.capture.is_recorded == recorded, trainer.capture.reason
    return trainer


def same(*folders):
    states = [torch.load(folder / "models" / "training_state.pt", weights_only=True) for folder in folders]
    for player in [player for state in states for player in state["players"].values()]:
        for group in player["optimizer"]["param_groups"]:
            group.pop("capturable", None)  # says how a step is computed
    histories = [(folder / "history.jsonl").read_text() for folder in folders]
    assert len(histories[0].splitlines()) == EPOCHS * LENGTH
    return histories[0] == histories[1] and all(runs.same(states[0][k], states[1][k]) for k in ("graph", "players"))


def iterations(folder):
    return [json.loads(line)["iteration"] for line in (folder / "history.jsonl").read_text().splitlines()]


def play(device, folder):
    """In the process that has the device."""
    trainer = trained(folder / "recorded")
    assert trainer.late == [0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert not any(trained(folder / "usual", False, cuda_graph=False).late)
    assert same(folder / "recorded", folder / "usual")
    rates = [group["lr"] for player in trainer.players.values() for group in player.optimizer.param_groups]
    assert all(isinstance(rate, float) for rate in rates) and rates[0] != rates[1]

    # Stopped by a signal in the second epoch, and resumed.
    trainer = trainer_of(folder / "resumed")
    stop = Events.ITERATION_STARTED(once=LENGTH + 5)
    trainer.add_event_handler(stop, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert trainer.capture.is_recorded and iterations(folder / "resumed") == [*range(1, LENGTH + 6)]
    trained(folder / "resumed", resume=True, recorded=False)  # three iterations are left
    assert same(folder / "recorded", folder / "resumed")

    # Ended by a handler.
    trainer = trainer_of(folder / "ended")
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), lambda: trainer.terminate())
    trainer.run()
    assert iterations(folder / "ended") == [*range(1, 7)]

    # A loss that is not finite.
    with pytest.raises(FloatingPointError, match="iteration 13: not finite: net/l1"):
        trained(folder / "spoilt", batches=Spoilt)
    state = torch.load(folder / "spoilt" / "models" / "training_state.pt", weights_only=True)
    assert state["iteration"] == LENGTH

    # Batches of another shape are computed as usual.
    trained(folder / "cut", batches=Cut)
    trained(folder / "cut_usual", False, cuda_graph=False, batches=Cut)
    assert same(folder / "cut", folder / "cut_usual")


def play_obstacles(device, folder):
    """What cannot be recorded goes on as usual, and a line says why."""
    obstacles = {
        "waiting": ({"network": Waiting}, "the processor waits for the GPU in "),
        "counting": ({"network": Counting}, "an iteration changes calls of the graph networks.net"),
        "replacing": ({"network": Replacing}, "an iteration changes mean of the graph networks.net"),
        "drawing": ({"network": Drawing}, "an iteration changes the random state of Python"),
        "refusing": ({"network": Refusing}, "the recording failed: RuntimeError: not allowed"),
        "adafactor": ({"optimizer": torch.optim.Adafactor}, "Adafactor, the optimizer of the player 'net', is not"),
        "renewed": ({"schedule": Renewed}, "the weight of net/fool, or its tensor, changed"),
        "float16": ({"amp": True, "amp_kwargs": {"dtype": torch.float16}}, "with float16, "),
        "cycled": ({"scheduler": partial(OneCycleLR, max_lr=0.01, total_steps=20)}, "an option of the optimizer of "),
    }
    for name, (options, reason) in obstacles.items():
        trainer = trained(folder / name, recorded=False, **options)
        assert reason in trainer.capture.reason, trainer.capture.reason
        trained(folder / f"{name}_usual", recorded=False, cuda_graph=False, **options)
        assert same(folder / name, folder / f"{name}_usual"), name


@pytest.mark.parametrize("function", [play, play_obstacles])
def test_recorded_iterations(function, tmp_path):
    simulated_cuda.Run(tmp_path / "log.txt", f"{__name__}:{function.__name__}", tmp_path).finish()
    said = (tmp_path / "log.txt").read_text()
    assert said.count("cuda_graph: iterations are not recorded, because ") == (0 if function is play else 9)
    assert "constructed with capturable=True" not in said


def play_together(device, rank, port, folder):
    """One of two processes with a GPU each."""
    device.gpus.append(simulated_cuda.Generator())
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl")
    for recorded, name in ((True, "recorded"), (False, "usual")):
        trained(folder / name, recorded, cuda_graph=recorded, device=torch.device("cuda", rank))
    if rank == 0:
        assert same(folder / "recorded", folder / "usual")


def test_two_processes_record(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [tmp_path / f"log_{rank}.txt" for rank in range(2)]
    name = f"{__name__}:play_together"
    for run in [simulated_cuda.Run(log, name, rank, port, tmp_path) for rank, log in enumerate(logs)]:
        run.finish()


def test_a_cpu_trains_as_usual(tmp_path, capsys):
    trained(tmp_path, recorded=False, device=torch.device("cpu"))
    assert "cuda_graph: iterations are not recorded, because the device is cpu, not a GPU." in capsys.readouterr().out
