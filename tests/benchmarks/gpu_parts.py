"""What ``tests.benchmarks.gpu`` measures of a bundle, part by part; the same code on a GPU and on a CPU."""

import contextlib
import functools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from common.engines import AlternatingTrainer
from tests.bundles import runs

from .common_parts import plain_iteration, seconds, synchronize
from .gpu_setup import Sizes, Training
from .gpu_tools import check, covered, cudnn, difference, place, relative, synchronisation_refused

MOST_SECONDS = 20  # that are timed, of a training
# Largest differences of float32 on the device from the CPU, TF32 off, of the CPU's value: losses of an iteration, some
# of them after steps of Adam, which makes much of rounding; batches and results, of the largest voxel.
LOSSES, VOXELS = 1e-3, 1e-4
PAPER_SECONDS = 2.30  # for a volume, of UDEAN (its authors' figure)
RESUMED = 0.05  # largest difference of the losses where atomic additions keep a resumed run from being the same


def matrix_product(device: torch.device, size: int) -> float:
    """bf16 operations a second of a matrix product, which no network exceeds."""
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, 20)


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def gpu_gib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


class Whole(contextlib.nullcontext):
    """In the place of torch's tracker of modules, which cannot follow the gradient of a gradient: all is one."""

    parents = ("Global",)


def initialized(files: Sequence[str], kind: str, device: torch.device, **override: object) -> ConfigWorkflow:
    """The workflow of configs, "train" or "inference", when it has begun."""
    options = {"workflow_type": kind, "logging_file": False, "device": f"$torch.device('{device}')", **override}
    workflow = ConfigWorkflow(config_file=files, **options)
    workflow.initialize()
    return workflow


class _Found(BaseException):
    """Ends a workflow whose trainer has been found; MONAI wraps any other exception."""


def trainer_of(workflow: ConfigWorkflow) -> AlternatingTrainer:
    """The first trainer that a workflow runs, before it runs."""
    found: list[AlternatingTrainer] = []

    def instead(trainer: AlternatingTrainer) -> None:
        found.append(trainer)
        raise _Found

    with mock.patch.object(AlternatingTrainer, "run", instead), contextlib.suppress(_Found):
        workflow.run()
    return found[0]


@dataclass(eq=False)
class MeasuredTraining:
    bundle: str
    training: Training
    sizes: Sizes
    device: torch.device
    folder: Path  # for the bundle's trainings; the first of them makes it, the next find there what it has left
    override: Mapping[str, object]  # of train.json
    iterations: int  # to time
    peak: float  # bf16 operations a second of a matrix product
    _seconds: float | None = None

    def build(
        self, folder: Path, epochs: int, iterations: int, device=None, float32: bool = False, **more: object
    ) -> AlternatingTrainer:
        lasting = runs.TINY[self.bundle].lasting(epochs, iterations)
        precision = {self.training.amp: False} if float32 and self.training.amp else {}
        override = {**self.override, **lasting, **self.training.override, **precision, **more}
        folders = {"output_dir": str(folder / "out"), "ckpt_dir": str(folder / "models")}
        files, where = runs.configs(self.bundle, "train"), device or self.device
        return trainer_of(initialized(files, "train", where, run_id=self.training.run, **folders, **override))

    def beside(self, name: str) -> Path:
        """A new folder that holds what the trainings before this one have left, but not what this one does."""
        folder = self.folder.with_name(f"{self.training.name}_{name}")
        return shutil.copytree(self.before, folder, dirs_exist_ok=True)

    @functools.cached_property
    def before(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        folder = self.folder.with_name(f"{self.training.name}_before")
        return shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("training_state*"))

    @functools.cached_property
    def trainer(self) -> AlternatingTrainer:
        _ = self.before
        return self.build(self.folder, 1, self.sizes.warm + self.iterations)

    @functools.cached_property
    def trainer_float32(self) -> AlternatingTrainer:
        return self.build(self.beside("float32"), 1, 1, float32=True)

    @property
    def seconds(self) -> float:
        if self._seconds is None:
            raise RuntimeError("there are no seconds an iteration, because the training failed")
        return self._seconds

    def iterate(self, batches: Iterator[dict[str, torch.Tensor]]) -> None:
        self.trainer._iteration(self.trainer, next(batches))

    def synchronisations(self) -> dict[str, object]:
        """Refuse all but one in the first iterations, the loader's part included."""
        loader, refused = self.trainer.data_loader, []
        for number in range(1, 4):
            try:
                with synchronisation_refused(self.device) as let_through:
                    self.iterate(iter(loader))
                if len(let_through) != 1:
                    refused.append(f"iteration {number}: {len(let_through)} transfers of logs, expected 1")
            except RuntimeError as error:
                refused.append(f"iteration {number}: {place(error)}")
        if refused:
            raise RuntimeError("; ".join(refused))
        return {"synchronisations": 1}

    def timed(self) -> dict[str, object]:
        """Train in earnest: iterations a second after the first few, and the memory that they took."""
        warm, times, gib = self.sizes.warm, {}, {}

        def look(engine: AlternatingTrainer) -> None:
            number, state = engine.state.iteration, engine.state
            late = times and time.perf_counter() - times[warm] > MOST_SECONDS
            if number in (warm, state.epoch_length) or late:  # what takes too long ends its epoch here
                synchronize()
                times[number] = time.perf_counter()
                if number == warm:
                    forget_peak(self.device)
                else:
                    state.epoch_length = number
                    gib["peak_gib"] = gpu_gib(self.device)

        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
        self.trainer.run()
        last = max(times)
        self._seconds = (times[last] - times[warm]) / (last - warm)
        return {"iterations": last - warm, "iterations_a_second": 1 / self.seconds, **gib}

    def computing(self) -> dict[str, object]:
        """The shares of the time without the profiler, which slows the host alone, and of the bf16 peak."""
        taken = self.seconds
        kind = ProfilerActivity.CUDA if self.device.type == "cuda" else ProfilerActivity.CPU
        batches = iter(self.trainer.data_loader)
        with profile(activities=[kind]) as profiled:
            for _ in range(self.sizes.profiled):
                self.iterate(batches)
            synchronize()
        events = [e for e in profiled.events() if e.device_type.name == kind.name and not e.is_user_annotation]
        microseconds = covered([(event.time_range.start, event.time_range.end) for event in events])
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = Whole()
        with counter:
            self.iterate(batches)
        rate = counter.get_total_flops() / taken
        busy, operators = (value / self.sizes.profiled for value in (microseconds / 1e6, len(events)))
        shares = {"busy_share": busy / taken, "peak_share": rate / self.peak}
        return {**shares, "operators": round(operators), "tflops": rate / 1e12}

    def float32(self) -> dict[str, object]:
        """One batch and one iteration on the device against the CPU's."""
        on_cpu = self.build(self.beside("cpu"), 1, 1, device=torch.device("cpu"), float32=True)
        batch = next(iter(on_cpu.data_loader))
        with cudnn(allow_tf32=False):  # when data is prepared, too: by the networks of earlier stages
            own = self.trainer_float32
            own.graph.load_state_dict(on_cpu.graph.state_dict())
            own_batch = next(iter(own.data_loader))
            (found,) = own._iteration(own, batch)
        (expected,) = on_cpu._iteration(on_cpu, batch)
        batches = max(difference(own_batch[key], value) for key, value in batch.items())
        losses = max(relative(found[term], value) for term, value in expected.items())
        check("a batch", batches, VOXELS)
        check("an iteration's losses", losses, LOSSES)
        return {"batch_difference": batches, "loss_difference": losses}

    def plain(self) -> dict[str, object]:
        """An iteration against that of a plain loop: no trainer and no loader, float32, torch's own defaults."""
        trainer = self.trainer_float32
        batch = {key: value.to(self.device) for key, value in next(iter(trainer.data_loader)).items()}
        # The trainer has laid both out for its own convolutions, and its optimizers' states too.
        trainer.graph.to(memory_format=torch.contiguous_format)
        for player in trainer.players.values():
            player.optimizer.state.clear()
        with cudnn(deterministic=False, allow_tf32=True):
            taken = seconds(plain_iteration(trainer, batch), self.sizes.repeats)
        return {"plain_seconds": taken, "of_plain": self.seconds / taken}

    def resumed(self) -> dict[str, object]:
        """A training that was stopped in the second of five iterations and resumed, against one that was not."""
        whole, stopped = self.beside("whole"), self.beside("stopped")
        self._run_until(5, whole)
        self._run_until(2, stopped)
        self._run_until(5, stopped, resume=True)
        pairs = zip(*(runs.history(folder, self.training.suffix) for folder in (whole, stopped)), strict=True)
        worst = max(relative(other[key], value) for one, other in pairs for key, value in one.items())
        exact = self.training.exact or self.device.type == "cpu"
        check("the losses of a resumed run", worst, 0 if exact else RESUMED)
        bitwise = worst == 0 and self._same_weights(whole, stopped)
        if exact and not bitwise:
            raise RuntimeError("the losses of a resumed run are the same, but not its weights and optimizers")
        return {"resumed_difference": worst, "resumed_bitwise": bitwise}

    def _run_until(self, iteration: int, folder: Path, **override: object) -> None:
        """Train for two epochs of three iterations, stopped after this one, before pictures are drawn, by Ctrl-C."""
        trainer = self.build(folder, 2, 3, **override)
        stop = Events.ITERATION_STARTED(once=iteration)
        trainer.add_event_handler(stop, lambda engine: setattr(engine, "interrupted", True))
        try:
            trainer.run()
        except KeyboardInterrupt:
            return
        raise RuntimeError(f"the training was to stop in iteration {iteration}, not in {trainer.state.iteration}")

    def _same_weights(self, *folders: Path) -> bool:
        name = f"models/training_state{self.training.suffix}.pt"
        states = [torch.load(folder / name, map_location="cpu", weights_only=True) for folder in folders]
        one, other = ([state["graph"], state["players"]] for state in states)
        return runs.same(one, other)


@dataclass(eq=False)
class MeasuredInference:
    bundle: str
    sizes: Sizes
    device: torch.device
    folder: Path  # of the training

    def call(self, result: Sequence[int], device: torch.device, amp: bool) -> Callable[[], torch.Tensor]:
        files = [*runs.configs(self.bundle, "inference"), str(self.folder / "models" / "model.json")]
        override = {"output_dir": str(self.folder / "sr"), "dataset#data": [], "evaluator#amp": amp}
        content = initialized(files, "inference", device, **override).parser.get_parsed_content
        scale, evaluator = content("scale"), content("evaluator")
        shapes = [[n // s for n, s in zip(result, scale, strict=True)]]
        shapes += [result] if runs.TINY[self.bundle].guided else []
        random = torch.Generator().manual_seed(0)
        volumes = [torch.rand(1, 1, *shape, generator=random).to(device) for shape in shapes]

        def infer() -> torch.Tensor:
            with torch.no_grad():
                sr = evaluator.inferer(volumes[0], evaluator.network, *volumes[1:])
            if list(sr.shape[2:]) != list(result):
                raise RuntimeError(f"the result has {tuple(sr.shape[2:])} voxels, expected {tuple(result)}")
            return sr

        return infer

    def timed(self) -> dict[str, object]:
        """Seconds for a volume in bf16 and in float32 as torch computes it by default, and memory in bf16."""
        figures = {}
        for name, amp in (("float32", False), ("bf16", True)):
            infer = self.call(self.sizes.result, self.device, amp)
            forget_peak(self.device)
            with cudnn(deterministic=False):  # which the trainings of this process have set
                figures[f"seconds_{name}"] = seconds(infer, self.sizes.repeats)
        paper = PAPER_SECONDS if self.sizes.name == "paper" else None
        return {**figures, "paper_seconds": paper, "peak_gib": gpu_gib(self.device)}

    def float32(self) -> dict[str, object]:
        """A small volume on the device against the CPU's."""
        with cudnn(allow_tf32=False):
            found = self.call(self.sizes.checked, self.device, amp=False)()
        worst = difference(found, self.call(self.sizes.checked, torch.device("cpu"), amp=False)())
        check("a result", worst, VOXELS)
        return {"result_difference": worst}
