"""The bundles on a GPU that is simulated: right, and with few waits for it.

Each run is a process of its own, see :mod:`tests.simulated_cuda`.
"""

import contextlib
import functools
import json
import os
import signal
import socket

import monai.bundle
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator

from common import inferers
from common.data import CaseLoader
from common.engines import AlternatingTrainer, CaseEvaluator
from tests import simulated_cuda
from tests.benchmarks.gpu_setup import vgg_weights

from . import runs

PRECISIONS = {
    "float32": {"amp": False},
    "bfloat16": {"amp": True},
    "float16": {"amp": True, "amp_kwargs": {"dtype": "$torch.float16"}},
}
LENGTH = (1, 3)  # epochs, iterations an epoch


# In the process of a run


class Watch:
    """Sees what this process asks of the device; SIGTERM ends training number ``stop`` in its first iteration."""

    def __init__(self, device, stages):
        self.device, self.stop = device, None
        run = AlternatingTrainer.run

        def watched(trainer):
            self.training += 1
            self.count(trainer, stages[self.training])
            run(trainer)

        AlternatingTrainer.run = watched
        self.count_calls(SupervisedEvaluator, "_iteration", "validation")
        cases = CaseLoader.__iter__

        def cases_ahead(loader):
            assert loader.ahead
            return cases(loader)

        CaseLoader.__iter__ = cases_ahead
        for name in dir(inferers):
            if isinstance(kind := getattr(inferers, name), type):
                self.count_calls(kind, "__call__", "volume")

    def run(self, bundle, names, folder, **override):
        """Run configs."""
        self.training = -1
        self.device.phases.clear()
        start(bundle, names, folder, **override)

    def worst(self):
        """Of each phase of the latest run, the most waits, where they were, and the most operators."""
        worst = {}
        for name, phases in self.device.phases.items():
            # What is put on the device once is no cost of an iteration.
            phases = phases[1:] if len(phases) > 1 else phases
            by_waits = max((phase.summary() for phase in phases), key=lambda phase: phase["waits"])
            worst[name] = {**by_waits, "operators": max(phase.operators for phase in phases)}
        return worst

    def count(self, trainer, stage):
        """Count each batch and each iteration, with all that handlers do after it."""
        events = {
            Events.GET_BATCH_STARTED: self.device.begin,
            Events.GET_BATCH_COMPLETED: lambda: self.device.end(f"batch{stage}"),
            Events.ITERATION_STARTED: self.device.begin,
            Events.ITERATION_COMPLETED: lambda: self.device.end(f"iteration{stage}"),
        }
        for event, handler in events.items():
            trainer.add_event_handler(event, handler)
        if self.training == self.stop:
            trainer.add_event_handler(Events.ITERATION_STARTED(once=1), lambda: signal.raise_signal(signal.SIGTERM))

    def count_calls(self, kind, method, phase):
        """Count each volume, once where one inferer calls others."""
        call = getattr(kind, method)

        def watched(caller, *args, **kwargs):
            if self.device.phase is not None or isinstance(caller, CaseEvaluator):
                return call(caller, *args, **kwargs)
            self.device.begin()
            result = call(caller, *args, **kwargs)
            self.device.end(phase)
            return result

        setattr(kind, method, watched)


def in_precision(bundle, names, options):
    """Overrides of every engine of configs."""
    engine = "evaluate#evaluator" if "evaluate" in names else "evaluator" if "inference" in names else "train#trainer"
    return {f"{engine}#{option}": value for option, value in options.items()}


def start(bundle, names, folder, **override):
    """Run configs as ``python -m monai.bundle run`` does, on the device that they choose unless they are told."""
    settings = runs.overrides(bundle, names, folder, **override)
    if "device" not in override:
        settings.pop("device", None)
    files = runs.with_overlay(bundle, names, folder, settings)
    monai.bundle.run(config_file=files, logging_file=False, **settings)


def play(device, bundle, precision, folder, data, scan):
    """Train, and train again, stopped in each stage on a machine with two GPUs and resumed on one; evaluate and infer.

    It leaves counts.json: the worst of each phase.
    """
    tiny, options, data = runs.TINY[bundle], PRECISIONS[precision], {"dataset_dir": str(data)}
    watch, counts = Watch(device, tiny.stages), {}
    length = {**data, **in_precision(bundle, ["train"], options), **tiny.lasting(*LENGTH)}
    if bundle == "ct_guided":  # whose tiny trainings leave out what needs weights from elsewhere
        length |= {"lambda_3": 1.0, "vgg_weights": str(vgg_weights(folder / "vgg16.pth"))}
    shipped = (
        {"any_axis": True, "data_consistency_iterations": 8} if bundle == "udean_window" else {}
    )  # as its weights are applied
    watch.run(bundle, ["train"], folder / "whole", **length)
    counts["train"], counts["resumed"] = watch.worst(), {}
    device.gpus.append(simulated_cuda.Generator())
    for watch.stop in range(len(tiny.stages)):
        with contextlib.suppress(KeyboardInterrupt):
            watch.run(bundle, ["train"], folder / "stopped", resume=True, **length)
        assert watch.training == watch.stop, f"it was to be stopped in training {watch.stop}"
        counts["resumed"] |= watch.worst()
    device.gpus.pop()
    watch.stop = None
    watch.run(bundle, ["train"], folder / "stopped", resume=True, **length)
    counts["resumed"] |= watch.worst()
    assert runs.same(*(runs.results(bundle, folder / name) for name in ("whole", "stopped"))), "it is another run"
    names = ["train", "evaluate"]
    watch.run(bundle, names, folder / "whole", **data, **shipped, **in_precision(bundle, names, options))
    scan = {**scan, **shipped, **in_precision(bundle, ["inference"], options)}
    watch.run(bundle, ["inference"], folder / "whole", **scan)
    counts["inference"] = watch.worst()
    (folder / "counts.json").write_text(json.dumps(counts))


def play_recorded(device, bundle, names, folder, settings):
    """Train with iterations that are recorded, and with iterations that are not."""
    run = AlternatingTrainer.run

    def watched(trainer):
        run(trainer)
        assert trainer.capture.is_recorded == recorded, trainer.capture.reason

    AlternatingTrainer.run = watched
    for recorded, name in ((True, "recorded"), (False, "usual")):
        options = in_precision(bundle, names, {"amp": True, "cuda_graph": recorded})
        start(bundle, names, folder / name, **settings, **options)
    for path in [*folder.glob("recorded/models/*.pt"), *folder.glob("recorded/out/*.jsonl")]:
        files = path, folder / "usual" / path.relative_to(folder / "recorded")
        assert runs.same(*(written_by_training(file) for file in files)), path


def written_by_training(file):
    if file.suffix != ".pt":
        return file.read_text()
    state = torch.load(file, weights_only=True)
    for player in state.get("players", {}).values():
        for group in player["optimizer"]["param_groups"]:
            group.pop("capturable", None)  # says how a step is computed
    return state


def play_alone(device, bundle, names, folder, settings):
    start(bundle, names, folder, **settings)


def play_together(device, rank, port, bundle, folder, settings):
    """One of two processes on a machine with two GPUs; both break off after two iterations."""
    device.gpus.append(simulated_cuda.Generator())
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train = AlternatingTrainer.run

    def breaking_off(trainer):
        trainer.add_event_handler(Events.ITERATION_STARTED(once=3), lambda: os._exit(0))
        train(trainer)

    AlternatingTrainer.run = breaking_off
    start(bundle, ["train"], folder, **{"train#trainer#save_minutes": 0}, **settings)


# In the process of the tests


def run_of(function, log, *args, **options):
    return simulated_cuda.Run(log, f"{__name__}:{function.__name__}", *args, **options)


@pytest.fixture(scope="module")
def scan(bundle, tmp_path_factory):
    tiny = runs.TINY[bundle]
    return tiny.only(tiny.save_lr(tmp_path_factory.mktemp(f"scan_{bundle}"), "a", runs.phantom(9)))


@pytest.fixture(scope="module")
def played(bundle, cohort, scan, tmp_path_factory):
    """A function of a precision: the folder in which the bundle has played in it, once."""
    folder = tmp_path_factory.mktemp(f"cuda_{bundle}")

    @functools.cache
    def played_in(precision):
        own = folder / precision
        run_of(play, own / "log.txt", bundle, precision, own, cohort, scan).finish()
        return own

    return played_in


@pytest.mark.parametrize(
    "precision", [name if name == "bfloat16" else pytest.param(name, marks=pytest.mark.slow) for name in PRECISIONS]
)
@runs.each_form
def test_budget(bundle, tiny, played, precision):
    """Trained, stopped, resumed the same, evaluated and applied, with no more waits and operators than its budgets."""
    assert tiny.budgets
    over, counts = [], json.loads((played(precision) / "counts.json").read_text())
    # Volumes of validation lie on the device.
    assert counts["train"].get("validation", {"waits": 0})["waits"] == 0, counts["train"]["validation"]
    for phase, (waits, operators) in tiny.budgets.items():
        for run in ("inference",) if phase == "volume" else ("train", "resumed"):
            found = counts[run][phase]
            if found["waits"] > waits or found["operators"] > operators:
                over.append(f"{run}, {phase}: at most {waits} and {operators}, found {found}")
    assert not over, "\n".join(over)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["guided_rdn", "udean"], indirect=True)
def test_two_gpus(bundle, tiny, cohort, played, tmp_path):
    """Two processes with a GPU and half of the batch each follow one, which goes on from where they broke off."""
    precision = in_precision(bundle, ["train"], PRECISIONS["float32"])
    settings = {"dataset_dir": str(cohort), **precision, **tiny.lasting(*LENGTH)}
    break_off_together(bundle, tmp_path, settings)
    assert len(runs.history(tmp_path, tiny.stages[0])) == 2
    run_of(play_alone, tmp_path / "log.txt", bundle, ["train"], tmp_path, {**settings, "resume": True}).finish()
    for stage in tiny.stages:
        one, two = (runs.history(folder, stage) for folder in (played("float32") / "whole", tmp_path))
        for first, second in zip(one, two, strict=True):
            assert first.keys() == second.keys()
            np.testing.assert_allclose([*second.values()], [*first.values()], rtol=1e-4, atol=1e-4)


def break_off_together(bundle, folder, settings):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [folder / f"log_{rank}.txt" for rank in range(2)]
    for run in [run_of(play_together, log, rank, port, bundle, folder, settings) for rank, log in enumerate(logs)]:
        run.finish()


OVERLAYS = [
    ("srcnn", "paper", {}),
    ("udean", "train_supervised", {}),
    ("guided_rdn", "train_supervised", {"cascade": 1}),
    ("downsampling_gan", "known_kernel", {}),
    ("ct_guided", "paper", {}),
    ("ct_guided", "train_supervised", {}),
]


@pytest.mark.parametrize(
    ("bundle", "overlay", "override"),
    [(name, "train", {}) for name in runs.FORMS]
    + [pytest.param(name, "train", {}, marks=pytest.mark.slow) for name, tiny in runs.TINY.items() if tiny.like]
    + [pytest.param(*overlay, marks=pytest.mark.slow) for overlay in OVERLAYS],
    indirect=["bundle"],
)
def test_recorded_iterations_train_as_usual_ones(bundle, overlay, override, tiny, cohort, tmp_path):
    settings = {"dataset_dir": str(cohort), **tiny.lasting(1, 6), **override}
    names = [*dict.fromkeys(["train", overlay])]
    run_of(play_recorded, tmp_path / "log.txt", bundle, names, tmp_path, settings).finish()


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "overlay", "override"), OVERLAYS, indirect=["bundle"])
def test_overlays(bundle, overlay, override, tiny, cohort, tmp_path):
    settings = {"dataset_dir": str(cohort), **tiny.lasting(1, 2), **override}
    for names in (["train", overlay], ["train", overlay, "evaluate"]):
        run_of(play_alone, tmp_path / "log.txt", bundle, names, tmp_path, settings).finish()
    cases = json.loads((tmp_path / "out" / "table.json").read_text())["cases"]
    assert cases and all(np.isfinite(case["psnr"]) for case in cases)
