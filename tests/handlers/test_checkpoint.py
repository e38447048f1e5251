"""Runs that are cut off anywhere and go on exactly; checkpoints that are whole, known, and harmless to load."""

import copy
import json
import operator
import os
import random
import shutil
import signal
from functools import partial

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanSquaredError, from_engine
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import lr_scheduler
from torch.utils._pytree import keystr, tree_flatten_with_path

from common.engines import AlternatingTrainer, Player
from common.graph import TensorGraph
from common.handlers import BestModel, LastModel, LossHistory, ResumableState, ValidationWithInitial, checkpoint
from common.weights.loading import load_weights as load_weights
from common.weights.loading import read_overlay
from common.weights.saving import SavedWeights
from tests.bundles import runs
from tests.engines.games import Batches, close_to
from tests.refused import refused

EPOCHS, LENGTH = 3, 4
load = partial(torch.load, weights_only=True)
SETTINGS = {"slice_axis": "SI", "offset": (0.5, 0.5, 0.0)}  # that the weights' shapes do not tell


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    with runs.undrawn():
        yield


class Noisy(nn.Module):  # its pass depends on all random states, and it has buffers
    def __init__(self):
        super().__init__()
        self.layer = spectral_norm(nn.Conv2d(1, 1, 3, padding=1))

    def forward(self, x):
        noise = torch.rand(1).item() + random.random() + np.random.rand() + np.random.randn() if self.training else 0.0
        return self.layer(x + noise) + nn.functional.dropout(x, 0.5, self.training)


def evaluator_of(network, path, device="cpu", better=operator.gt):
    """A validation that keeps the best weights; its metric is the mean square of what the network makes of ones."""
    loader = DataLoader([{"image": torch.ones(1, 5, 5), "label": torch.zeros(1, 5, 5)}], batch_size=1)
    metric = {"mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))}
    options = {"metric_cmp_fn": better, "val_handlers": [BestModel(SavedWeights(network, [path], {}))]}
    return SupervisedEvaluator(torch.device(device), loader, network, key_val_metric=metric, **options)


def run_of(folder, resume=False, seed=0, minutes=0, at=lambda *_: None, device="cpu", **changes):
    """A small game with everything that a run has; ``at`` is called with events of the trainer and the iteration."""
    for seeding in (torch.manual_seed, random.seed, np.random.seed):
        seeding(seed)
    sizes = {"epochs": EPOCHS, "length": LENGTH, "players": ("generator", "judge"), "networks": Noisy}
    cosine = partial(lr_scheduler.CosineAnnealingLR, T_max=EPOCHS * LENGTH)
    sizes |= {"iteration_scheduler": cosine, "epoch_scheduler": None}
    sizes |= {"initial": None, "better": operator.gt, "settings": SETTINGS, "lr": 0.01, "rows": {}} | changes
    sizes = {"optimizer": partial(torch.optim.Adam, lr=sizes["lr"])} | sizes
    networks = {"up": sizes["networks"](), "judge": sizes["networks"]()}
    graph = TensorGraph(networks, {"sr": ["up", "lr"], "verdict": ["judge", "sr"], "real": ["judge", "hr"]})
    rows = {"l1": [1.0, nn.L1Loss(), "sr", "hr"], "fool": [1.0, close_to(1), "verdict"]} | sizes["rows"]
    verdicts = {"real": [1.0, close_to(1), "real"], "fake": [1.0, close_to(0), "verdict"]}
    options = {name: sizes[name] for name in ("iteration_scheduler", "epoch_scheduler")}
    players = {"generator": Player(["up"], sizes["optimizer"], rows, **options)}
    players |= {"judge": Player(["judge"], partial(torch.optim.SGD, lr=0.05, momentum=0.9), verdicts)}
    players = {name: players[name] for name in sizes["players"]}
    evaluator = evaluator_of(networks["up"], folder / "model.pt", device, sizes["better"])
    last = SavedWeights(networks["up"], [folder / "model_last.pt"], {})
    handlers = [  # in the order of train.json
        LossHistory(folder / "history.jsonl", evaluator),
        ValidationWithInitial(sizes["initial"], interval=1, validator=evaluator, epoch_level=True),
        ResumableState(folder / "state.pt", resume, minutes, evaluator, [folder / "later.pt"], sizes["settings"], last),
    ]
    device, batches = torch.device(device), Batches(2, 1, 5, 5)
    trainer = AlternatingTrainer(
        sizes["epochs"], batches, graph, players, sizes["length"], device, train_handlers=handlers, amp=False
    )
    for event in (Events.ITERATION_STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED):
        trainer.add_event_handler(event, lambda engine, name: at(name, engine.state.iteration), event.value)
    return trainer, evaluator


def result_of(trainer, evaluator, folder):
    result = {name: load(folder / name) for name in ("model.pt", "model_last.pt", "state.pt")}
    result |= {"graph": trainer.graph.state_dict(), "history": (folder / "history.jsonl").read_text()}
    result |= {"players": {name: player.state_dict() for name, player in trainer.players.items()}}
    result |= {"best": (evaluator.state.best_metric, evaluator.state.best_metric_epoch)}
    return result | {"at": (trainer.state.epoch, trainer.state.iteration)}


def played(folder, resume=False, **options):
    """Everything that a run leaves, after it has been played."""
    trainer, evaluator = run_of(folder, resume, **options)
    trainer.run()
    return result_of(trainer, evaluator, folder)


def assert_same(a, b):
    a, b = ({keystr(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]} for tree in (a, b))
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name], name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run leaves that nothing interrupts, and the disk at many moments of it, as kill -9 would leave it."""
    folder, moments, swap = tmp_path_factory.mktemp("whole"), {}, os.replace

    def copy_of_disk(*moment):
        moments[moment] = shutil.copytree(folder, tmp_path_factory.mktemp("moment") / "run")

    def before_it_is_there(source, target):
        if str(target).endswith("state.pt"):
            copy_of_disk("before the checkpoint is moved", load(source)["iteration"])
        if str(target).endswith("model.pt"):
            copy_of_disk("after the overlay is moved", read_overlay(target)["trained"]["iteration"])
        swap(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", before_it_is_there)
        return played(folder, at=copy_of_disk), moments


def test_a_run_leaves_its_losses_and_its_validations(whole):
    result, moments = whole
    lines = result["history"].splitlines()
    assert len(lines) == EPOCHS * LENGTH + EPOCHS and sum("validation/mse" in line for line in lines) == EPOCHS
    assert '"generator/l1"' in lines[0] and '"judge/total"' in lines[0]
    assert len(moments) == EPOCHS * (3 * LENGTH + 2)


MOMENTS = {
    "iteration_started": (1, 4, 5),  # at 1 nothing has been saved yet
    "before the checkpoint is moved": (1, 4, 7, 12),  # at 4 the epoch has been validated
    "after the overlay is moved": (4, 8),  # the weights are still those of before
    "iteration_completed": (2, 4, 11),  # at 4 it has not; and a line is only half written
    "epoch_completed": (4, 12),  # at 12 all is done
}


@pytest.mark.parametrize("moment", [(event, n) for event, numbers in MOMENTS.items() for n in numbers], ids=str)
def test_a_run_that_is_killed_goes_on_bit_for_bit(whole, moment, tmp_path):
    """A new process has the same seed; what it drew while it was set up must not matter after a resume."""
    folder = shutil.copytree(whole[1][moment], tmp_path / "run")
    later, saved = folder / "later.pt", (folder / "state.pt").exists()
    later.write_bytes(b"")
    if moment[0] == "iteration_completed":
        with (folder / "history.jsonl").open("a") as file:
            file.write('{"epoch": 2, "iteration": 7, "gener')
    assert_same(played(folder, resume=True, seed=99 if saved else 0), whole[0])
    assert later.exists() == saved, "what builds on a run is taken back where that begins anew, and then only"


def test_a_run_in_the_background_is_not_interrupted_by_what_is_ignored_there(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    result = played(tmp_path, at=lambda *_: signal.raise_signal(signal.SIGINT))
    assert signal.signal(signal.SIGINT, before) == signal.SIG_IGN and result["at"] == (EPOCHS, EPOCHS * LENGTH)


def test_a_run_that_is_interrupted_twice_ends_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        played(tmp_path, at=lambda *_: [signal.raise_signal(number) for number in (signal.SIGTERM, signal.SIGTERM)])
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("lr", [0.01, 0.003])
@pytest.mark.parametrize(
    ("scheduler", "length", "options", "done"),
    [
        ("CosineAnnealingLR", "T_max", {"eta_min": 1e-8}, 6),
        ("OneCycleLR", "total_steps", {"max_lr": 0.02}, 8),
        ("StepLR", None, {"step_size": 6, "gamma": 0.2}, 6),
        ("ReduceLROnPlateau", None, {"factor": 0.1, "patience": 0}, 8),
    ],
)
def test_a_prolonged_run_goes_on_as_the_longer_one(tmp_path, scheduler, length, options, done, lr):
    """From where it is: its rates are those of a run of that length and rate; where they do not differ, all is."""

    def run(name, epochs, resume=False):
        rates = {}

        def at(event, iteration):
            (group,) = trainer.players["generator"].optimizer.param_groups
            if event == "iteration_started":
                rates[iteration] = (group["lr"], group["betas"])
            if name == "short" and (event, iteration) == (f"{'epoch' if done == 8 else 'iteration'}_completed", done):
                (shutil.copytree(tmp_path / "short", tmp_path / "then") / "later.pt").write_bytes(b"")

        rate = partial(getattr(lr_scheduler, scheduler), **options, **({length: epochs * LENGTH} if length else {}))
        schedulers = {"iteration_scheduler": rate}
        if scheduler == "ReduceLROnPlateau":
            schedulers = {"iteration_scheduler": None, "epoch_scheduler": rate}
        schedulers["lr"] = 0.01 if name == "short" else lr
        trainer, evaluator = run_of(tmp_path / name, resume, at=at, epochs=epochs, **schedulers)
        trainer.run()
        return rates, result_of(trainer, evaluator, tmp_path / name)

    expected, long = run("long", 4)
    run("short", 2)
    (saved,) = load(tmp_path / "then" / "state.pt")["players"]["generator"]["optimizer"]["param_groups"]
    rates, prolonged = run("then", 4, resume=True)
    assert not (tmp_path / "then" / "later.pt").exists(), "it builds on the shorter run"
    assert len(prolonged["history"].splitlines()) == 4 * (LENGTH + 1)
    if scheduler == "ReduceLROnPlateau" and lr != 0.01:  # its rates depend on the losses that it has seen
        assert rates[done + 1][0] == pytest.approx(saved["lr"] * lr / 0.01)
        return
    assert rates == {i: expected[i] for i in range(done + 1, 4 * LENGTH + 1)}
    if length is None and lr == 0.01:
        assert_same(prolonged, long)


@pytest.mark.parametrize(("better", "best"), [(operator.gt, EPOCHS * LENGTH), (operator.lt, 0)])
def test_weights_that_a_run_starts_from_are_kept_where_no_epoch_is_better(tmp_path, better, best, caplog):
    """Training makes the metric larger: the last or the first weights are best. It is resumed in its first epoch."""
    weights = {}

    def at(event, iteration):
        if event == "epoch_completed" or (event, iteration) == ("iteration_started", 1):
            weights[0 if iteration == 1 else iteration] = copy.deepcopy(trainer.graph.networks["up"].state_dict())
        if (event, iteration) == ("iteration_started", 2):
            signal.raise_signal(signal.SIGTERM)

    run = partial(run_of, tmp_path, minutes=None, initial="some.pt", better=better, at=at)
    caplog.set_level("INFO")
    trainer, _ = run()
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    trainer, _ = run(resume=True)
    trainer.run()
    assert caplog.text.count("of the initial weights: there is nothing to compare it with yet") == 1
    assert caplog.text.count("nothing to compare it with yet") == 1
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    metrics = {line["iteration"]: line["validation/mse"] for line in lines if "validation/mse" in line}
    assert list(metrics) == [0, *range(LENGTH, EPOCHS * LENGTH + 1, LENGTH)]
    assert all(metrics[best] == value or better(metrics[best], value) for value in metrics.values())
    assert_same(load(tmp_path / "model.pt"), weights[best])


def refuse_to_go_on(folder, *words, **changes):
    """Check that a run names the state that it cannot go on from, and leaves it as it is."""
    before = (folder / "state.pt").read_bytes()
    refused(run_of(folder, resume=True, **changes)[0].run, ValueError, folder / "state.pt", *words)
    assert (folder / "state.pt").read_bytes() == before


def test_a_state_of_another_run_or_no_state_is_refused(whole, tmp_path):
    path = shutil.copytree(whole[1]["epoch_completed", 4], tmp_path / "run") / "state.pt"
    refuse, state = partial(refuse_to_go_on, path.parent, "--overwrite True"), path.read_bytes()
    refuse("epoch_length 4", "5", f"--initial {path.with_name('model_last.pt')}", length=5)
    refuse("max_epochs 3", "2", epochs=2)
    refuse("epoch_length 4", "5", epochs=4, length=5)
    refuse("other networks", networks=partial(nn.Conv2d, 1, 1, 5, padding=2))
    refuse("['generator', 'judge']", "['judge', 'generator']", players=("judge", "generator"))
    refuse("player generator", "amsgrad False", "True", optimizer=partial(torch.optim.Adam, lr=0.01, amsgrad=True))
    refuse("player generator", "optimizer was Adam", "RMSprop", optimizer=partial(torch.optim.RMSprop, lr=0.01))
    refuse("fold unknown", "1", settings=SETTINGS | {"fold": 1})
    refuse("slice_axis SI", "AP", settings=SETTINGS | {"slice_axis": "AP"})
    refuse("offset [0.5, 0.5, 0.0]", "unknown", settings={"slice_axis": "SI"})
    refuse("residual unknown", "True", settings=SETTINGS | {"residual": True})
    for size in (0, 1, 100, len(state) // 2, len(state) - 1):
        path.write_bytes(state[:size])
        refuse_to_go_on(path.parent, "not a checkpoint")
    for value in (None, [1, 2], {"iteration": 4, "max_epochs": 2, "epoch_length": 4}):
        torch.save(value, path)
        refuse()


def test_the_best_weights_are_kept_and_not_the_last(tmp_path):
    network, path, kept = nn.Conv2d(1, 1, 1, bias=False), tmp_path / "models" / "model.pt", []
    evaluator = evaluator_of(network, path)
    for epoch, metric in enumerate([1.0, 3.0, 2.0, 3.5, 0.0], start=1):
        network.weight.data.fill_(metric**0.5)
        evaluator.run(epoch)
        kept.append(load(path)["weight"].item() ** 2)
    assert kept == pytest.approx([1, 3, 3, 3.5, 3.5])


@pytest.mark.parametrize(("rank", "expected"), [(0, [[2, 2], [4, 4], [6, 6]]), (1, [[], [], []])])
def test_the_last_weights_are_kept_in_every_file(tmp_path, monkeypatch, rank, expected):
    """As they are when an epoch ends, by process 0 only."""
    monkeypatch.setattr(checkpoint.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(checkpoint.dist, "get_rank", lambda: rank)
    network, paths, kept = nn.Linear(1, 1), [tmp_path / "new" / "stage_1.pt", tmp_path / "model.pt"], []
    engine = Engine(lambda engine, batch: network.weight.data.fill_(engine.state.iteration))
    LastModel(SavedWeights(network, [paths[0], str(paths[1])], {})).attach(engine)
    engine.on(Events.EPOCH_COMPLETED)(lambda: kept.append([load(p)["weight"].item() for p in paths if p.exists()]))
    engine.run(range(2), max_epochs=3)
    assert kept == expected
