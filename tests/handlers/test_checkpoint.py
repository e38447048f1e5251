"""Runs that are cut off anywhere and go on exactly; checkpoints that are whole, known, and harmless to load."""

import json
import operator
import os
import pickle
import random
import re
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanSquaredError, from_engine
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from common.engines import AlternatingTrainer, Player
from common.files import replacing
from common.graph import TensorGraph
from common.handlers import (
    BestModel,
    LastModel,
    LossHistory,
    ResumableState,
    ValidationWithInitial,
    checkpoint,
    load_stages,
    load_weights,
)
from common.handlers.checkpoint import save_atomically
from common.networks import Cascade
from tests import simulated_cuda

EPOCHS, LENGTH = 3, 4


class Noisy(nn.Module):
    """A network whose pass depends on all random states, and that has buffers."""

    def __init__(self):
        super().__init__()
        self.layer = spectral_norm(nn.Conv2d(1, 1, 3, padding=1))

    def forward(self, x):
        noise = torch.rand(1).item() + random.random() + np.random.rand() + np.random.randn() if self.training else 0.0
        return self.layer(x + noise) + nn.functional.dropout(x, 0.5, self.training)


class Batches:
    def __init__(self):
        self.iteration = 0

    def set_iteration(self, iteration):
        self.iteration = iteration

    def __iter__(self):
        while True:
            self.iteration += 1
            generator = torch.Generator().manual_seed(self.iteration)
            yield {key: torch.randn(2, 1, 5, 5, generator=generator) for key in ("hr", "lr")}


def seed_everything(seed=0):
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def run_of(folder, resume=False, minutes=0, at=None, device="cpu", **changes):
    """A small game with everything that a run has, in ``folder``; ``at`` is called at events of the trainer."""
    device = torch.device(device)
    sizes = {"epochs": EPOCHS, "length": LENGTH, "players": ("generator", "judge"), "networks": Noisy}
    sizes |= {"scheduler": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=EPOCHS * LENGTH)}
    sizes |= {"stop_below": None, "initial": None, "better": operator.gt, "settings": None} | changes
    networks = {"up": sizes["networks"](), "judge": sizes["networks"]()}
    graph = TensorGraph(networks, {"sr": ["up", "lr"], "verdict": ["judge", "sr"], "real": ["judge", "hr"]})

    def term(name, loss, *inputs):
        return name, [1.0, loss, *inputs]

    players = {
        "generator": Player(
            ["up"],
            lambda p: torch.optim.Adam(p, lr=0.01),
            dict([term("l1", nn.L1Loss(), "sr", "hr"), term("fool", lambda v: (v - 1).square(), "verdict")]),
            scheduler=sizes["scheduler"],
            stop_below=sizes["stop_below"],
        ),
        "judge": Player(
            ["judge"],
            lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
            dict([term("real", lambda v: (v - 1).square(), "real"), term("fake", torch.square, "verdict")]),
        ),
    }
    validation = DataLoader([{"image": torch.ones(1, 5, 5), "label": torch.zeros(1, 5, 5)}], batch_size=1)
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=validation,
        network=networks["up"],
        key_val_metric={"mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        metric_cmp_fn=sizes["better"],
        val_handlers=[BestModel(networks["up"], folder / "model.pt")],
    )
    # The order of train.json.
    handlers = [
        LossHistory(folder / "history.jsonl", evaluator),
        ValidationWithInitial(sizes["initial"], interval=1, validator=evaluator, epoch_level=True),
        ResumableState(folder / "state.pt", resume, minutes, evaluator, settings=sizes["settings"]),
    ]
    trainer = AlternatingTrainer(
        device,
        sizes["epochs"],
        Batches(),
        graph,
        {name: players[name] for name in sizes["players"]},
        epoch_length=sizes["length"],
        train_handlers=handlers,
    )
    for event in () if at is None else (Events.ITERATION_STARTED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED):
        trainer.add_event_handler(event, at, event.value)
    return trainer, evaluator


def result_of(trainer, evaluator, folder):
    """Everything that a run leaves."""
    return {
        "graph": trainer.graph.state_dict(),
        "players": {name: player.state_dict() for name, player in trainer.players.items()},
        "best": (evaluator.state.best_metric, evaluator.state.best_metric_epoch),
        "at": (trainer.state.epoch, trainer.state.iteration),
        "model": torch.load(folder / "model.pt", weights_only=True),
        "state": torch.load(folder / "state.pt", weights_only=True),
        "history": (folder / "history.jsonl").read_text(),
    }


def assert_same(a, b, where="result"):
    """Bit for bit."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}, {key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}, {i}")
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts, and what was on the disk at many moments of it, as kill -9 would leave it."""
    folder, moments = tmp_path_factory.mktemp("whole"), {}

    def copy(name, source=folder):
        moments[name] = tmp_path_factory.mktemp("moment") / "run"
        shutil.copytree(source, moments[name])

    def at(engine, event):
        copy((event, engine.state.iteration))

    seed_everything()
    trainer, evaluator = run_of(folder, at=at)
    swap = os.replace
    with pytest.MonkeyPatch.context() as patch:

        def before_it_is_there(source, target):
            if str(target).endswith("state.pt"):
                copy(("before the checkpoint is moved", trainer.state.iteration))
            swap(source, target)

        patch.setattr(os, "replace", before_it_is_there)
        trainer.run()
    return result_of(trainer, evaluator, folder), moments


def test_a_run_leaves_its_losses_and_its_validations(whole):
    result, moments = whole
    lines = result["history"].splitlines()
    assert len(lines) == EPOCHS * LENGTH + EPOCHS and sum("validation/mse" in line for line in lines) == EPOCHS
    assert '"generator/l1"' in lines[0] and '"judge/total"' in lines[0]
    assert len(moments) == EPOCHS * (3 * LENGTH + 1)


@pytest.mark.parametrize(
    "moment",
    [
        ("iteration_started", 1),  # nothing has been saved yet
        ("before the checkpoint is moved", 1),
        ("iteration_completed", 2),
        ("iteration_started", 4),
        ("iteration_completed", 4),  # the end of an epoch, not validated yet
        ("before the checkpoint is moved", 4),  # validated, not saved
        ("epoch_completed", 4),
        ("iteration_started", 5),
        ("before the checkpoint is moved", 7),
        ("iteration_completed", 11),
        ("before the checkpoint is moved", 12),
        ("epoch_completed", 12),  # all is done
    ],
    ids=str,
)
def test_a_run_that_is_killed_goes_on_bit_for_bit(whole, moment, tmp_path):
    expected, moments = whole
    folder = tmp_path / "run"
    shutil.copytree(moments[moment], folder)
    # A new process, which has the same seed; what it drew while it was set up must not matter after a resume.
    seed_everything(0 if not (folder / "state.pt").exists() else 99)
    trainer, evaluator = run_of(folder, resume=True)
    trainer.run()
    result = result_of(trainer, evaluator, folder)
    assert_same(result, expected)


def test_a_line_that_was_only_half_written_is_written_again(whole, tmp_path):
    expected, moments = whole
    folder = shutil.copytree(moments["iteration_completed", 6], tmp_path / "run")
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "iteration": 7, "gener')
    trainer, _ = run_of(folder, resume=True)
    trainer.run()
    assert (folder / "history.jsonl").read_text() == expected["history"]


@pytest.mark.parametrize(("minutes", "saved"), [(None, 4), (5, 7), (0, 7)])
def test_a_run_that_fails_goes_on_from_its_last_checkpoint(whole, minutes, saved, tmp_path, monkeypatch):
    """Each iteration lasts two minutes on this clock."""

    class Failure(Exception):
        pass

    now = [100.0]
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now[0]))
    done = []

    def at(engine, event):
        now[0] += 120.0 * (event == "iteration_started")
        if (tmp_path / "state.pt").exists():
            done.append(torch.load(tmp_path / "state.pt", weights_only=True)["iteration"])
        if event == "iteration_completed" and engine.state.iteration == 8:
            raise Failure("the disk of another program is full")

    seed_everything()
    trainer, _ = run_of(tmp_path, minutes=minutes, at=at)
    with pytest.raises(Failure):
        trainer.run()
    assert list(dict.fromkeys(done)) == {None: [4], 5: [3, 4, 7], 0: [1, 2, 3, 4, 5, 6, 7]}[minutes]
    assert torch.load(tmp_path / "state.pt", weights_only=True)["iteration"] == saved
    seed_everything(5)
    trainer, evaluator = run_of(tmp_path, resume=True, minutes=minutes)
    trainer.run()
    assert_same(result_of(trainer, evaluator, tmp_path), whole[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("last", [3, 4])
def test_a_run_that_is_interrupted_ends_with_its_iteration_and_goes_on_from_there(whole, number, last, tmp_path):
    """Iteration 4 ends an epoch, which is validated; a handler of the signal that was there is there again."""

    def at(engine, event):
        if event == "iteration_started" and engine.state.iteration == last:
            signal.raise_signal(number)

    before = signal.signal(number, signal.default_int_handler)  # of tests in the background it is to be ignored
    seed_everything()
    trainer, _ = run_of(tmp_path, minutes=None, at=at)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.signal(number, before) is signal.default_int_handler
    assert torch.load(tmp_path / "state.pt", weights_only=True)["iteration"] == last
    seed_everything(5)
    trainer, evaluator = run_of(tmp_path, resume=True, minutes=None)
    trainer.run()
    assert_same(result_of(trainer, evaluator, tmp_path), whole[0])


def test_a_run_in_the_background_is_not_interrupted_by_what_is_ignored_there(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainer, _ = run_of(tmp_path, at=lambda engine, event: signal.raise_signal(signal.SIGINT))
    trainer.run()
    assert signal.signal(signal.SIGINT, before) == signal.SIG_IGN
    assert trainer.state.epoch == EPOCHS


def test_a_run_that_is_interrupted_twice_ends_at_once(tmp_path):
    def at(engine, event):
        if event == "iteration_started":
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    trainer, _ = run_of(tmp_path, at=at)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("minutes", [-1, True, "often"])
def test_minutes_that_are_none_are_refused(minutes):
    with pytest.raises(ValueError, match=r"save_minutes is .*, expected minutes, 0 or more, or null"):
        ResumableState("state.pt", minutes=minutes)


SCHEDULERS = {
    "cosine": lambda n: lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=n * LENGTH, eta_min=1e-8),
    "one cycle": lambda n: lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.02, total_steps=n * LENGTH),
    "steps": lambda n: lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=6, gamma=0.2),
    "plateau": lambda n: lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.1, patience=0),
}


@pytest.mark.parametrize(("scheduler", "done"), zip(SCHEDULERS, (6, 8, 6, 8), strict=True))
def test_a_prolonged_run_goes_on_as_the_longer_one(tmp_path, scheduler, done):
    """From where it is: its rates are those that a run of that length had; and where they do not differ, all is."""

    def run(folder, epochs, resume=False, at=None):
        folder.mkdir(exist_ok=True)
        seed_everything()
        sizes = {"epochs": epochs, "scheduler": SCHEDULERS[scheduler](epochs)}
        trainer, evaluator = run_of(folder, resume=resume, at=at, **sizes)
        rates = {}

        def note():
            (group,) = trainer.players["generator"].optimizer.param_groups
            rates[trainer.state.iteration] = (group["lr"], group["betas"])

        trainer.add_event_handler(Events.ITERATION_STARTED, note)
        trainer.run()
        return rates, result_of(trainer, evaluator, folder)

    expected, long = run(tmp_path / "long", 4)

    def at(engine, event):
        if (event, engine.state.iteration) == ("epoch_completed" if done == 8 else "iteration_completed", done):
            shutil.copytree(tmp_path / "short", tmp_path / "then")

    run(tmp_path / "short", 2, at=at)
    rates, prolonged = run(tmp_path / "then", 4, resume=True)
    assert rates == {i: expected[i] for i in range(done + 1, 4 * LENGTH + 1)}
    if scheduler in ("steps", "plateau"):
        assert_same(prolonged, long)
    assert len(prolonged["history"].splitlines()) == 4 * (LENGTH + 1)


@pytest.mark.parametrize("better", [operator.gt, operator.lt])
def test_weights_that_a_run_starts_from_are_kept_where_no_epoch_is_better(tmp_path, better):
    """Training makes the metric larger: the last or the first weights are best. It is resumed in its first epoch."""
    found = {}

    def at(engine, event):
        if engine.state.iteration == 1 or event == "epoch_completed":
            found.setdefault(event, []).append(engine.graph.networks["up"].state_dict())
            found[event][-1] = {key: value.clone() for key, value in found[event][-1].items()}
        if event == "iteration_started" and engine.state.iteration == 2:
            signal.raise_signal(signal.SIGTERM)

    seed_everything()
    trainer, _ = run_of(tmp_path, initial="some.pt", better=better, at=at)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    trainer, _ = run_of(tmp_path, resume=True, initial="some.pt", better=better, at=at)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    metrics = {line["iteration"]: line["validation/mse"] for line in lines if "validation/mse" in line}
    assert list(metrics) == [0, *range(LENGTH, EPOCHS * LENGTH + 1, LENGTH)]
    best = (max if better is operator.gt else min)(metrics, key=metrics.get)
    assert best == (0 if better is operator.lt else EPOCHS * LENGTH)
    expected = found["iteration_started"][0] if best == 0 else found["epoch_completed"][-1]
    assert_same(torch.load(tmp_path / "model.pt", weights_only=True), expected)


def test_without_resume_a_run_begins_anew_and_with_it_needs_no_checkpoint(whole, tmp_path):
    for folder, resume in ((whole[1]["epoch_completed", 8], False), (tmp_path, True)):
        copy = shutil.copytree(folder, tmp_path / f"copy{resume}", dirs_exist_ok=True) if not resume else folder
        seed_everything()
        trainer, evaluator = run_of(copy, resume=resume)
        trainer.run()
        assert_same(result_of(trainer, evaluator, copy), whole[0])


def test_a_run_that_ends_by_itself_goes_on_to_the_same_end_and_then_does_nothing(tmp_path):
    """Of a player whose rate falls on a plateau and below its bound; it is killed within epochs and at their ends."""
    changes = {
        "epochs": 30,
        "players": ("generator",),
        "scheduler": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.1, patience=1),
        "stop_below": 2e-4,
    }
    whole, moments = tmp_path / "whole", {}
    whole.mkdir()

    def at(engine, event):
        moments[event, engine.state.iteration] = tmp_path / f"{event}{engine.state.iteration}"
        shutil.copytree(whole, moments[event, engine.state.iteration])

    seed_everything()
    trainer, evaluator = run_of(whole, at=at, **changes)
    trainer.run()
    expected, epochs = result_of(trainer, evaluator, whole), trainer.state.epoch
    assert trainer.players["generator"].finished and 4 < epochs < 30 and trainer.state.iteration == epochs * LENGTH
    # The rate falls by what an epoch was before the kill and after it together.
    last = (epochs - 1) * LENGTH
    for event, iteration in [("iteration_completed", n) for n in (2, last - 1, last + 3)] + [("epoch_completed", last)]:
        seed_everything(99)
        trainer, evaluator = run_of(moments[event, iteration], resume=True, **changes)
        trainer.run()
        assert_same(result_of(trainer, evaluator, moments[event, iteration]), expected)

    def content(folder):
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}

    before = content(whole)
    assert {"model.pt", "state.pt", "history.jsonl", "losses.png"} == before.keys()
    trainer, _ = run_of(whole, resume=True, at=lambda *_: pytest.fail("a finished run went on"), **changes)
    trainer.run()
    assert content(whole) == before and trainer.state.epoch == epochs


def refusal(folder, **changes):
    seed_everything()
    trainer, _ = run_of(folder, resume=True, **changes)
    before = (folder / "state.pt").read_bytes()
    with pytest.raises(ValueError) as error:
        trainer.run()
    assert str(folder / "state.pt") in str(error.value)
    assert (folder / "state.pt").read_bytes() == before
    return str(error.value)


class Wider(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 5, padding=2)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"length": 5}, r"epoch_length 4, now it is 5"),
        ({"epochs": 2}, r"max_epochs 3, now it is 2"),
        ({"epochs": 4, "length": 5}, r"epoch_length 4, now it is 5"),
        ({"networks": Wider}, r"other networks or players"),
        ({"players": ("judge", "generator")}, r"other networks or players \(players \['generator', 'judge'\]"),
        ({"players": ("generator",)}, r"other networks or players"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(whole, tmp_path, changes, said):
    folder = shutil.copytree(whole[1]["epoch_completed", 4], tmp_path / "run")
    message = refusal(folder, **changes)
    assert re.search(said, message) and "--overwrite true" in message


def foreign_files(whole):
    state = (whole[1]["epoch_completed", 4] / "state.pt").read_bytes()
    yield from (state[:n] for n in (0, 1, 100, len(state) // 2, len(state) - 1))
    yield np.random.default_rng(0).bytes(2000)
    yield b"\x80\x02" + state[:100]
    yield from ({"weight": torch.ones(2)}, [1, 2], 3.0, None, {"iteration": 4, "max_epochs": 2, "epoch_length": 4})


def test_a_file_that_is_no_state_is_refused(whole, tmp_path):
    for i, content in enumerate(foreign_files(whole)):
        folder = tmp_path / str(i)
        folder.mkdir()
        if isinstance(content, bytes):
            (folder / "state.pt").write_bytes(content)
        else:
            torch.save(content, folder / "state.pt")
        message = refusal(folder)
        assert "not a checkpoint that can be read" in message or "start anew with --overwrite true" in message


def network_of(features=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, features, 3), nn.BatchNorm2d(features))


def test_weights_are_loaded_for_evaluation(tmp_path):
    trained = network_of()
    nn.init.normal_(trained[0].weight)
    save_atomically(trained.state_dict(), tmp_path / "model.pt")
    loaded = load_weights(network_of(), tmp_path / "model.pt")
    assert not loaded.training
    assert_same(dict(loaded.state_dict()), dict(trained.state_dict()))
    with pytest.raises(FileNotFoundError, match=r"no weights at .*none\.pt.*--checkpoint"):
        load_weights(network_of(), tmp_path / "none.pt")


def cascade_of(seed, features=2):
    torch.manual_seed(seed)
    return Cascade([nn.Sequential(nn.Conv2d(1, features, 1), nn.BatchNorm2d(features)) for _ in range(12)], 2)


@pytest.mark.parametrize("count", [0, 1, 2, 12])
def test_of_a_cascade_the_first_stages_are_loaded_and_no_other(tmp_path, count):
    path, trained, cascade = tmp_path / "model.pt", cascade_of(1), cascade_of(2)
    for network in trained.stages:
        nn.init.uniform_(network[1].running_mean)
    before = {name: value.clone() for name, value in cascade.state_dict().items()}
    if count:
        with pytest.raises(FileNotFoundError, match="no weights at"):
            load_stages(cascade, path, count)
        save_atomically(cascade_of(1, features=3).state_dict(), path)
        with pytest.raises(ValueError, match="another architecture"):
            load_stages(cascade, path, count)
        save_atomically(trained.state_dict(), path)
    # Without a stage before, as in a first training, there need not be a file.
    assert load_stages(cascade, path, count) is cascade
    for i, (own, other) in enumerate(zip(cascade.stages, trained.stages, strict=True)):
        first = {name.removeprefix(f"stages.{i}."): v for name, v in before.items() if name.startswith(f"stages.{i}.")}
        assert_same(dict(own.state_dict()), dict(other.state_dict()) if i < count else first)


def test_weights_of_another_architecture_say_what_differs(tmp_path):
    path = tmp_path / "model.pt"
    save_atomically(network_of(4).state_dict(), path)
    with pytest.raises(ValueError, match=r"model\.pt.*another architecture.*\(4, 1, 3, 3\) float32 instead of \(3, 1"):
        load_weights(network_of(3), path)
    save_atomically({"0.weight": torch.ones(3, 1, 3, 3), "2.bias": torch.ones(1), "0.bias": 5}, path)
    with pytest.raises(ValueError, match=r"Missing: 1\.weight.* and .* more\. Unknown: 2\.bias\. .*0\.bias"):
        load_weights(network_of(3), path)
    save_atomically([torch.ones(1)], path)
    with pytest.raises(ValueError, match=r"model\.pt.*dictionary of weights, found list"):
        load_weights(network_of(3), path)


def test_corrupt_weights_are_named(whole, tmp_path):
    path = tmp_path / "model.pt"
    good = (whole[1]["epoch_completed", 4] / "model.pt").read_bytes()
    for content in (b"", good[: len(good) // 2], b"PK\x03\x04 not a zip", np.random.default_rng(1).bytes(500)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.pt: not a checkpoint that can be read"):
            load_weights(network_of(), path)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_loading_weights_runs_no_code(tmp_path):
    for content in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))):
        content(Bomb(tmp_path / "exploded"), tmp_path / "model.pt")
        with pytest.raises(ValueError, match="not a checkpoint"):
            load_weights(network_of(), tmp_path / "model.pt")
    assert not (tmp_path / "exploded").exists()


def test_the_best_weights_are_kept_and_not_the_last(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    metrics = {1: 1.0, 2: 3.0, 3: 2.0, 4: 3.5, 5: 0.0}
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader([{"image": torch.ones(1), "label": torch.zeros(1)}], batch_size=1),
        network=network,
        key_val_metric={"mse": MeanSquaredError(output_transform=from_engine(["pred", "label"]))},
        val_handlers=[BestModel(network, tmp_path / "models" / "model.pt")],
    )
    kept = []
    for epoch, metric in metrics.items():
        network.weight.data.fill_(metric**0.5)
        evaluator.run(epoch)
        kept.append(torch.load(tmp_path / "models" / "model.pt", weights_only=True)["weight"].item() ** 2)
    assert kept == pytest.approx([1, 3, 3, 3.5, 3.5])


@pytest.mark.parametrize("rank", [0, 1])
def test_the_last_weights_are_kept_in_every_file(tmp_path, monkeypatch, rank):
    """As they are when an epoch ends, by process 0 only."""
    monkeypatch.setattr(checkpoint.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(checkpoint.dist, "get_rank", lambda: rank)
    network, paths, kept = nn.Linear(1, 1), [tmp_path / "new" / "stage_1.pt", tmp_path / "model.pt"], []
    engine = Engine(lambda engine, batch: network.weight.data.fill_(engine.state.iteration))
    LastModel(network, [paths[0], str(paths[1])]).attach(engine)

    @engine.on(Events.EPOCH_COMPLETED)
    def look():
        kept.append([torch.load(path, weights_only=True)["weight"].item() for path in paths if path.exists()])

    engine.run(range(2), max_epochs=3)
    assert kept == [[[2, 2], [4, 4], [6, 6]], [[], [], []]][rank]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "state.nii.gz"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent and temporary.name.endswith(".nii.gz")
        temporary.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the sec")
        raise RuntimeError("killed")
    assert path.read_text() == "first" and os.listdir(path.parent) == ["state.nii.gz"]


def test_a_run_that_begins_anew_takes_back_what_builds_on_it(tmp_path):
    """The states of later stages are no use once an earlier stage is trained anew; a run that goes on leaves them."""
    own, later, other = (tmp_path / f"training_state_{i}.pt" for i in (1, 2, 3))
    for file in (own, later, other):
        file.write_bytes(b"")
    handler = ResumableState(own, invalidates=[later])
    handler._restore(Engine(lambda engine, batch: None))
    assert not own.exists() and not later.exists() and other.exists()
    ResumableState(own, resume=True, invalidates=[other])._restore(Engine(lambda engine, batch: None))
    assert not other.exists(), "resumed without a state, it begins anew"


def test_a_run_goes_on_with_its_own_settings(tmp_path):
    """Those that the weights' shapes do not tell, and those that they do."""
    settings = {"slice_axis": "SI", "offset": (0.5, 0.5, 0.0)}
    seed_everything()
    run_of(tmp_path, players=("generator",), settings=settings)[0].run()
    for change, said in (
        ({"settings": {**settings, "slice_axis": "AP"}}, "was started with slice_axis SI, now it is AP"),
        ({"settings": {"slice_axis": "SI"}}, r"was started with offset \[0.5, 0.5, 0.0\], now it is unknown"),
        ({"settings": {**settings, "residual": True}}, "was started with residual unknown to it, now it is True"),
        ({"settings": settings}, r"was started with other networks or players \(players \['generator'\]"),
    ):
        with pytest.raises(ValueError, match=rf"state.pt: the run {said}.*start anew with --overwrite true"):
            run_of(tmp_path, resume=True, **change)[0].run()
    prolonged = run_of(tmp_path, resume=True, players=("generator",), settings=settings, epochs=EPOCHS + 1)[0]
    prolonged.run()
    assert prolonged.state.epoch == EPOCHS + 1


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_that_is_prolonged_takes_back_what_builds_on_it(tmp_path, ended):
    """But for one that had ended by itself, which ends there again."""
    settings = {"players": ("generator",), "stop_below": 0.009 if ended else None}
    seed_everything()
    run_of(tmp_path, **settings)[0].run()
    later = tmp_path / "later.pt"
    for epochs, left in ((EPOCHS, True), (EPOCHS + 1, ended)):
        later.write_bytes(b"")
        trainer, _ = run_of(tmp_path, resume=True, epochs=epochs, **settings)
        trainer.state.max_epochs = epochs
        handler = ResumableState(tmp_path / "state.pt", resume=True, invalidates=[later])
        handler._restore(trainer)
        assert later.exists() == left


def test_without_a_gpu_the_file_is_not_blamed(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.save(nn.Conv2d(1, 3, 3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="device is cuda:0, but torch finds no GPU"):
        load_weights(nn.Conv2d(1, 3, 3), tmp_path / "model.pt", "cuda:0")


def play_on_gpus(device, folder):
    """In a process with a simulated device: a run on a machine with two GPUs that goes on, on one, bit for bit."""

    def at(engine, event):
        if (event, engine.state.iteration) == ("iteration_completed", 6):
            shutil.copytree(folder / "whole", folder / "stopped")

    device.gpus.append(torch.Generator())
    seed_everything()
    whole = run_of(folder / "whole", at=at, device="cuda:0")
    whole[0].run()
    device.gpus.pop()
    seed_everything(99)
    resumed = run_of(folder / "stopped", resume=True, device="cuda:0")
    resumed[0].run()
    assert_same(*(result_of(*run, folder / name) for run, name in ((resumed, "stopped"), (whole, "whole"))))
    (first,) = torch.load(folder / "whole" / "state.pt", weights_only=True)["random"]["cuda"]
    assert torch.equal(first, torch.cuda.get_rng_state()), "it ends with the device's own random numbers"
    steps = [state["step"] for state in resumed[0].players["generator"].optimizer.state.values()]
    assert steps and not any(step.is_cuda for step in steps), "each would be fetched at each step"


def test_a_run_on_two_gpus_goes_on_with_one(tmp_path):
    """With the random numbers of the GPU that trains, and Adam's steps on the CPU."""
    failure = simulated_cuda.Run(tmp_path / "log.txt", f"{__name__}:play_on_gpus", tmp_path).failure()
    assert not failure, failure
