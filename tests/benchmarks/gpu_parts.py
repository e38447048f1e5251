"""What ``tests.benchmarks.gpu`` measures of a bundle, part by part; the same code on a GPU and on a CPU."""

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from torch.profiler import ProfilerActivity, profile

from common.engines import AlternatingTrainer
from tests.bundles import runs

from .common_parts import seconds, synchronize
from .gpu_setup import Sizes, Training
from .gpu_tools import check, covered, cudnn, difference, relative

MOST_SECONDS = 3  # that are timed, of a training
# Largest differences of float32 on the device from the CPU, TF32 off, of the CPU's value: losses of an iteration, some
# of them after steps of Adam, which makes much of rounding; batches and results, of the largest voxel.
LOSSES, VOXELS = 1e-3, 1e-4
RESUMED = 0.05  # of losses of a resumed run, where atomic additions keep a run from being the same


def forget_peak(device: torch.device) -> float:
    """Measure the peak anew; GiB that are reserved now, which are others'."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_reserved(device) / 2**30


def peak_gib(device: torch.device, others: float) -> float | None:
    """The peak of what torch reserves."""
    return torch.cuda.max_memory_reserved(device) / 2**30 - others if device.type == "cuda" else None


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
    folder: Path  # that holds what the trainings before this one have left
    override: Mapping[str, object]  # of train.json
    iterations: int  # to time
    left: Path | None = None  # folder of the latest run of this training that has ended
    timed: tuple[AlternatingTrainer, float] | None = None  # with iterations a second

    def build(
        self, folder: Path, epochs: int, iterations: int, device=None, amp=None, **more: object
    ) -> AlternatingTrainer:
        """The trainer before it runs; amp is left to it where it is None, or where it has no choice."""
        options = {"amp": amp} if self.training.amp and amp is not None else {}
        override = {**self.override, **runs.TINY[self.bundle].lasting(epochs, iterations), **self.training.override}
        override |= {f"train#trainer#{key}": value for key, value in options.items()} | more
        folders = {"output_dir": str(folder / "out"), "ckpt_dir": str(folder / "models")}
        files = runs.configs(self.bundle, "train")
        where = device or self.device
        return trainer_of(initialized(files, "train", where, **folders, **override))

    def beside(self, name: str) -> Path:
        """A new folder that holds what the trainings before this one have left, but not what this one does."""
        self.folder.mkdir(exist_ok=True)
        folder = self.folder.with_name(f"{self.training.name}_{name}")
        return shutil.copytree(self.folder, folder)

    def leave(self) -> None:
        """Leave what this training gave to the later ones."""
        if self.left is not None:
            states = shutil.ignore_patterns("training_state*")
            shutil.copytree(self.left, self.folder, dirs_exist_ok=True, ignore=states)

    def speed(self) -> dict[str, object]:
        """Train in earnest: iterations a second after the first few, and memory."""
        warm, times, memory = self.sizes.warm, {}, {}
        folder, others = self.beside("speed"), forget_peak(self.device)
        trainer = self.build(folder, 1, warm + self.iterations)

        def look(engine: AlternatingTrainer) -> None:
            number, state = engine.state.iteration, engine.state
            late = times and time.perf_counter() - times[warm] > MOST_SECONDS
            if number in (warm, state.epoch_length) or late:  # what takes too long ends its epoch here
                synchronize()
                times[number] = time.perf_counter()
                if number != warm:
                    state.epoch_length = number
                    memory["peak_gib"] = peak_gib(self.device, others)

        trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
        trainer.run()
        self.left, last = folder, max(times)
        rate = (last - warm) / (times[last] - times[warm])
        self.timed = trainer, rate
        return {"iterations": last - warm, "iterations_a_second": rate, **memory}

    def busy(self) -> dict[str, object]:
        """The share of the time of :meth:`speed` in which the GPU computes, and the operators an iteration.

        It comes after all that is timed: a profiler makes the host slower, also when it has ended.
        """
        if self.timed is None:
            raise RuntimeError("there are no iterations a second, because the training failed")
        trainer, rate = self.timed
        kind = ProfilerActivity.CUDA if self.device.type == "cuda" else ProfilerActivity.CPU
        batches, number = iter(trainer.data_loader), self.sizes.profiled
        with profile(activities=[kind]) as profiled:
            for _ in range(number):
                trainer._iteration(trainer, next(batches))
            synchronize()
        events = [e for e in profiled.events() if e.device_type.name == kind.name and not e.is_user_annotation]
        taken = covered([(event.time_range.start, event.time_range.end) for event in events]) / 1e6
        return {"busy_share": taken * rate / number, "operators": round(len(events) / number)}

    def float32(self) -> dict[str, object]:
        """One batch and one iteration on the device against the CPU's."""
        cpu = torch.device("cpu")
        on_cpu = self.build(self.beside("cpu"), 1, 1, device=cpu, amp=False)
        batch = next(iter(on_cpu.data_loader))
        with cudnn(allow_tf32=False):  # when data is prepared, too: by the networks of earlier stages
            own = self.build(self.beside("float32"), 1, 1, amp=False)
            own.graph.load_state_dict(on_cpu.graph.state_dict())
            own_batch = next(iter(own.data_loader))
            torch.manual_seed(0)
            (found,) = own._iteration(own, batch)
        state = torch.manual_seed(0).get_state()
        (expected,) = on_cpu._iteration(on_cpu, batch)
        batches = max(difference(own_batch[key], value) for key, value in batch.items())
        losses = max(relative(found[term], value) for term, value in expected.items())
        check("a batch", batches, VOXELS)
        if self.device == cpu or torch.equal(state, torch.get_rng_state()):  # devices draw other numbers
            check("an iteration's losses", losses, LOSSES)
        return {"batch_difference": batches, "loss_difference": losses}

    def resumed(self) -> dict[str, object]:
        """A training that was stopped in the fifth of eleven iterations and resumed, against a whole one."""
        whole, stopped = self.beside("whole"), self.beside("stopped")
        self._run_until(11, whole)
        self._run_until(5, stopped)
        self._run_until(11, stopped, resume=True)
        worst = self._worst(whole, stopped)
        check("the losses of a resumed run", worst, 0 if self._exact else RESUMED)
        bitwise = worst == 0 and self._same_weights(whole, stopped)
        if self._exact and not bitwise:
            raise RuntimeError("the losses of a resumed run are the same, but not its weights and optimizers")
        return {"resumed_difference": worst, "resumed_bitwise": bitwise}

    def _run_until(self, iteration: int, folder: Path, **override: object) -> None:
        """Train for two epochs of six iterations, stopped after this one, before pictures are drawn, by Ctrl-C."""
        trainer = self.build(folder, 2, 6, amp=self.device.type == "cuda", **override)
        stop = Events.ITERATION_STARTED(once=iteration)
        trainer.add_event_handler(stop, lambda engine: setattr(engine, "interrupted", True))
        try:
            trainer.run()
        except KeyboardInterrupt:
            return
        raise RuntimeError(f"the training was to stop in iteration {iteration}, not in {trainer.state.iteration}")

    @property
    def _exact(self) -> bool:
        return self.training.exact or self.device.type == "cpu"

    def _worst(self, *folders: Path) -> float:
        """The largest difference of the losses of two runs."""
        pairs = zip(*(runs.history(folder, self.training.suffix) for folder in folders), strict=True)
        return max(relative(other[key], value) for one, other in pairs for key, value in one.items())

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
            infer, others = self.call(self.sizes.result, self.device, amp), forget_peak(self.device)
            with cudnn(deterministic=False):  # which the trainings of this process have set
                figures[f"seconds_{name}"] = seconds(infer, self.sizes.repeats)
        return {**figures, "volume_gib": peak_gib(self.device, others)}

    def float32(self) -> dict[str, object]:
        """A small volume on the device against the CPU's."""
        with cudnn(allow_tf32=False):
            found = self.call(self.sizes.checked, self.device, amp=False)()
        worst = difference(found, self.call(self.sizes.checked, torch.device("cpu"), amp=False)())
        check("a result", worst, VOXELS)
        return {"result_difference": worst}
