"""What ``tests.benchmarks.gpu`` measures of a bundle, part by part; the same code on a GPU and on a CPU."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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

WARM = 10  # iterations that are not timed
MOST_SECONDS = 30  # that are timed, of a training
# Largest differences of float32 on the device from the CPU, TF32 off, of the CPU's value: losses of an iteration, some
# of them after steps of Adam, which makes much of rounding; batches and results, of the largest voxel.
LOSSES, VOXELS = 1e-3, 1e-4
NO_LOSS = 1e-2  # a loss below this differs by a share of this
RESUMED = 0.05  # largest difference of the losses where atomic additions keep a resumed run from being the same


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        name: "paper" for the defaults of train.json, "tiny" for those of tests/bundles/tiny.
        hr: voxels of the HR volumes to train on.
        result: voxels of the volume that is inferred.
        checked: voxels of the one that is inferred on the CPU too.
        matrix: rows of the matrix product.
        iterations: that are timed unless it is said how many.
        profiled: iterations under the profiler.
        repeats: of which a median is taken.
    """

    name: str
    hr: tuple[int, int, int]
    result: tuple[int, int, int]
    checked: tuple[int, int, int]
    matrix: int
    iterations: int
    profiled: int
    repeats: int


PAPER = Sizes("paper", (160, 160, 144), (160, 160, 128), (48, 48, 32), 8192, 200, 10, 5)
TINY = Sizes("tiny", (40, 44, 36), (24, 24, 16), (24, 24, 16), 256, 2, 1, 1)


@dataclass(frozen=True)
class Training:
    """One training of a bundle.

    Attributes:
        suffix: of its history and state.
        override: that chooses it.
        trainer: its key.
        exact: whether a resumed run on a GPU gives the same numbers; the backward passes of padding, of which kernel
            estimation and the later stages of ct_guided have some, add up in any order there.
    """

    suffix: str = ""
    override: Mapping[str, object] = field(default_factory=dict)
    trainer: str = "train#trainer"
    exact: bool = True

    @property
    def name(self) -> str:
        """As it is shown."""
        return self.suffix.strip("_") or "training"


def _stage(number: int, exact: bool = True) -> Training:
    return Training(f"_{number}", {"stage": number, "stages": [number]}, exact=exact)


# In the order in which one needs what the one before has left. Later stages of guided_rdn are the second again.
TRAININGS = {
    "ct_guided": (_stage(1), _stage(2, exact=False), _stage(3, exact=False)),
    "downsampling_gan": (
        Training("_kernels_1", {"stages": [1]}, "estimation#trainer", exact=False),
        Training("_edsr", {"stages": [2]}),
    ),
    "guided_rdn": (_stage(1), _stage(2)),
    "srcnn": (Training(),),
    "udean": (Training(),),
}


def make_cohort(bundle: str, sizes: Sizes, folder: Path) -> Path:
    """A datalist with one volume a group: the same phantom each time, as only its size counts."""
    tiny, hr = runs.TINY[bundle], runs.phantom(0, sizes.hr)
    groups = {group: [tiny.save_hr(folder, group, hr)] for group in tiny.groups}
    if "source" in groups:
        groups["source"] = [tiny.as_source(entry) for entry in groups["source"]]
    return runs.datalist(folder, **groups)


def vgg_weights(path: Path) -> Path:
    """Random weights of VGG-16 under torchvision's names, as far as ct_guided reads them."""
    state, index, inputs = {}, 0, 1 + 2
    for convolutions, channels in ((2, 64), (2, 128), (3, 256), (3, 512)):
        for _ in range(convolutions):
            layer = torch.nn.Conv2d(inputs, channels, 3)
            torch.nn.init.kaiming_normal_(layer.weight)
            state |= {f"features.{index}.{name}": value.detach() for name, value in layer.named_parameters()}
            index, inputs = index + 2, channels
        index += 1
    torch.save(state, path)
    return path


def settings(bundle: str, sizes: Sizes, cohort: Path) -> dict[str, object]:
    """Overrides of train.json: what phantoms are, and the tiny sizes where they are asked for."""
    tiny = runs.TINY[bundle]
    if sizes.name == "tiny":
        return {"dataset_dir": str(cohort), **tiny.network, **tiny.training}
    of_phantoms = {key: tiny.training[key] for key in ("slice_axis", "ct_offset", "window") if key in tiny.training}
    if bundle == "ct_guided":
        of_phantoms["vgg_weights"] = str(vgg_weights(cohort / "vgg16.pth"))
    return {"dataset_dir": str(cohort), **of_phantoms}


@contextlib.contextmanager
def cudnn(**flags: bool) -> Iterator[None]:
    """Flags of cuDNN within this context."""
    before = {name: getattr(torch.backends.cudnn, name) for name in flags}
    try:
        for name, value in flags.items():
            setattr(torch.backends.cudnn, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(torch.backends.cudnn, name, value)


def place(error: BaseException) -> str:
    """An error's kind and message, with the innermost line of the project that it came from."""
    cause = runs.first_cause(error)
    root = f"{runs.ROOT}/"
    lines = [frame for frame in traceback.extract_tb(cause.__traceback__) if frame.filename.startswith(root)]
    at = f" ({lines[-1].filename.removeprefix(root)}:{lines[-1].lineno})" if lines else ""
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}{at}"


@contextlib.contextmanager
def synchronisation_refused(device: torch.device) -> Iterator[list[int]]:
    """Each synchronisation of the host with the GPU is an error here, except the one that an iteration may have.

    That is the transfer of the logs, for which ``AlternatingTrainer._iteration`` calls ``tolist`` when all work is
    queued. Nothing else in the trainer's file calls it, and calls from elsewhere are refused. On a CPU nothing is.

    Yields:
        A list to which 1 is added for each transfer that was let through.
    """
    set_mode = torch.cuda.set_sync_debug_mode if device.type == "cuda" else lambda mode: None
    tolist, let_through = torch.Tensor.tolist, []
    trainer_file = AlternatingTrainer._iteration.__code__.co_filename

    def transferred(tensor: torch.Tensor) -> list:
        if sys._getframe(1).f_code.co_filename != trainer_file:
            return tolist(tensor)
        let_through.append(1)
        set_mode("default")
        try:
            return tolist(tensor)
        finally:
            set_mode("error")

    with mock.patch.object(torch.Tensor, "tolist", transferred):
        set_mode("error")
        try:
            yield let_through
        finally:
            set_mode("default")


def matrix_product(device: torch.device, size: int) -> float:
    """bf16 operations a second of a matrix product, which no network exceeds."""
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, 20)


class MeasuredTraining:
    """The parts that measure one training; each gives its figures by name.

    Args:
        bundle: its name.
        training: of the bundle.
        sizes: of everything.
        device: to train on.
        folder: for the bundle's trainings; the first of them makes it, the next find there what it has left.
        override: of train.json.
        iterations: to time.
        peak: bf16 operations a second of a matrix product.
    """

    def __init__(
        self,
        bundle: str,
        training: Training,
        sizes: Sizes,
        device: torch.device,
        folder: Path,
        override: Mapping[str, object],
        iterations: int,
        peak: float,
    ) -> None:
        self.bundle, self.training, self.sizes, self.device = bundle, training, sizes, device
        self.folder, self.override = folder, override
        self.iterations, self.peak = iterations, peak
        self._seconds: float | None = None

    def build(
        self, folder: Path, epochs: int, iterations: int, device: torch.device | None = None, **more: object
    ) -> AlternatingTrainer:
        """The trainer that the config makes, for so many epochs of so many iterations."""
        workflow = ConfigWorkflow(
            config_file=runs.configs(self.bundle, "train"),
            workflow_type="train",
            logging_file=False,
            output_dir=str(folder / "out"),
            ckpt_dir=str(folder / "models"),
            device=f"$torch.device('{device or self.device}')",
            **{**self.override, **runs.TINY[self.bundle].lasting(epochs, iterations), **self.training.override, **more},
        )
        workflow.initialize()
        return workflow.parser.get_parsed_content(self.training.trainer)

    def beside(self, name: str) -> Path:
        """A new folder that holds what the trainings before this one have left, but not what this one does."""
        folder = self.folder.with_name(f"{self.training.name}_{name}")
        return shutil.copytree(self.before, folder, dirs_exist_ok=True)

    @functools.cached_property
    def before(self) -> Path:
        """A copy of the folder as this training found it."""
        self.folder.mkdir(exist_ok=True)
        folder = self.folder.with_name(f"{self.training.name}_before")
        return shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("training_state*"))

    @functools.cached_property
    def trainer(self) -> AlternatingTrainer:
        """The one that trains in the bundle's folder."""
        _ = self.before
        return self.build(self.folder, 1, WARM + self.iterations)

    @functools.cached_property
    def trainer_float32(self) -> AlternatingTrainer:
        """One without autocast."""
        return self.build(self.beside("float32"), 1, 1, amp=False)

    @property
    def seconds(self) -> float:
        """An iteration's, once they have been timed."""
        if self._seconds is None:
            raise RuntimeError("there are no seconds an iteration, because the training failed")
        return self._seconds

    def iterate(self, batches: Iterator[dict[str, torch.Tensor]]) -> None:
        """An iteration as a run does it, with a new batch."""
        self.trainer._iteration(self.trainer, next(batches))

    def synchronisations(self) -> dict[str, object]:
        """Refuse all but one in the first iterations, the loader's part included."""
        refused = []
        for number in range(1, 4):
            try:
                with synchronisation_refused(self.device) as let_through:
                    self.iterate(iter(self.trainer.data_loader))
                if len(let_through) != 1:
                    refused.append(f"iteration {number}: {len(let_through)} transfers of logs, expected 1")
            except RuntimeError as error:
                refused.append(f"iteration {number}: {place(error)}")
        if refused:
            raise RuntimeError("; ".join(refused))
        return {"synchronisations": 1}

    def timed(self) -> dict[str, object]:
        """Train in earnest: iterations a second after the first few, and the memory that they took."""
        on_gpu = self.device.type == "cuda"
        times: dict[int, float] = {}
        gib = None

        def look(engine: AlternatingTrainer) -> None:
            nonlocal gib
            number, state = engine.state.iteration, engine.state
            # What takes too long ends its epoch here.
            late = times and time.perf_counter() - times[WARM] > MOST_SECONDS
            if number == WARM or number == state.epoch_length or late:
                synchronize()
                times[number] = time.perf_counter()
                if number == WARM and on_gpu:
                    torch.cuda.reset_peak_memory_stats(self.device)
                elif number > WARM:
                    state.epoch_length = number
                    gib = torch.cuda.max_memory_allocated(self.device) / 2**30 if on_gpu else None

        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
        self.trainer.run()
        last = max(times)
        self._seconds = (times[last] - times[WARM]) / (last - WARM)
        return {"iterations": last - WARM, "iterations_a_second": 1 / self.seconds, "peak_gib": gib}

    def computing(self) -> dict[str, object]:
        """The share of the time in which the device computes, and of its bf16 peak that it reaches.

        The time is that of an iteration without the profiler, which slows the host but not the kernels.
        """
        kind = ProfilerActivity.CUDA if self.device.type == "cuda" else ProfilerActivity.CPU
        batches = iter(self.trainer.data_loader)
        with profile(activities=[kind]) as profiled:
            for _ in range(self.sizes.profiled):
                self.iterate(batches)
            synchronize()
        found = [
            (event.time_range.start, event.time_range.end)
            for event in profiled.events()
            if event.device_type.name == kind.name and not event.is_user_annotation and not event.is_async
        ]
        with FlopCounterMode(display=False) as counter:
            self.iterate(batches)
        flops = counter.get_total_flops()
        return {
            "busy_share": covered(found) / 1e6 / self.sizes.profiled / self.seconds,
            "operators": round(len(found) / self.sizes.profiled),
            "tflops": flops / self.seconds / 1e12,
            "peak_share": flops / self.seconds / self.peak,
        }

    def float32(self) -> dict[str, object]:
        """One batch and one iteration on the device against the CPU's."""
        on_cpu = self.build(self.beside("cpu"), 1, 1, device=torch.device("cpu"), amp=False)
        own = self.trainer_float32
        own.graph.load_state_dict(on_cpu.graph.state_dict())
        batch, own_batch = (next(iter(trainer.data_loader)) for trainer in (on_cpu, own))
        batches = max(difference(own_batch[key], value) for key, value in batch.items())
        expected = on_cpu._iteration(on_cpu, batch)
        with cudnn(allow_tf32=False):
            found = own._iteration(own, batch)
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
        """A training that was stopped within an epoch and resumed against one that was not."""
        whole, stopped = self.beside("whole"), self.beside("stopped")
        self.build(whole, 2, 3).run()
        trainer = self.build(stopped, 2, 3)
        # As Ctrl-C does it.
        trainer.add_event_handler(Events.ITERATION_STARTED(once=4), lambda engine: setattr(engine, "interrupted", True))
        with contextlib.suppress(KeyboardInterrupt):
            trainer.run()
        before = len(self._history(stopped))
        if before >= len(self._history(whole)):
            raise RuntimeError(f"the training was to stop in its iteration 4, but wrote all {before} lines")
        self.build(stopped, 2, 3, resume=True).run()
        pairs = zip(self._history(whole), self._history(stopped), strict=True)
        worst = max(relative(other[key], value) for one, other in pairs for key, value in one.items())
        exact = self.training.exact or self.device.type == "cpu"
        check("the losses of a resumed run", worst, 0 if exact else RESUMED)
        same = self._weights(whole, stopped)
        if exact and not same:
            raise RuntimeError("the losses of a resumed run are the same, but not its weights and optimizers")
        return {"resumed_difference": worst, "resumed_bitwise": same and worst == 0}

    def _history(self, folder: Path) -> list[dict[str, float]]:
        return runs.history(folder, self.training.suffix)

    def _weights(self, *folders: Path) -> bool:
        """Whether networks and optimizers are the same in these folders, to the bit."""
        name = f"models/training_state{self.training.suffix}.pt"
        states = [torch.load(folder / name, map_location="cpu", weights_only=True) for folder in folders]
        one, other = ([state["graph"], state["players"]] for state in states)
        return same(one, other)


def same(one: object, other: object) -> bool:
    """Whether two states are the same, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def relative(found: float, expected: float) -> float:
    """Difference of a loss from another, as a share of that."""
    return abs(found - expected) / max(abs(expected), NO_LOSS)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest, as a share of the largest expected value."""
    expected = expected.detach().cpu().float()
    return ((found.detach().cpu().float() - expected).abs().max() / expected.abs().max().clamp_min(1e-6)).item()


def check(what: str, found: float, tolerance: float) -> None:
    """Refuse a difference above the tolerance, or none that is a number."""
    if not found <= tolerance:
        raise RuntimeError(f"{what}: relative difference {found:.1e}, expected at most {tolerance:.0e}")


class MeasuredInference:
    """The parts that measure inference with the weights that a training has left.

    Args:
        bundle: its name.
        sizes: of the volumes.
        device: to infer on.
        folder: of the training.
    """

    def __init__(self, bundle: str, sizes: Sizes, device: torch.device, folder: Path) -> None:
        self.bundle, self.sizes, self.device, self.folder = bundle, sizes, device, folder

    def call(self, result: Sequence[int], device: torch.device, amp: bool):
        """What gives a result of this shape, by inference.json's inferer."""
        workflow = ConfigWorkflow(
            config_file=runs.configs(self.bundle, "inference"),
            workflow_type="infer",
            logging_file=False,
            checkpoint=str(self.folder / "models" / "model.pt"),
            output_dir=str(self.folder / "sr"),
            device=f"$torch.device('{device}')",
            amp=amp,
        )
        workflow.initialize()
        scale, network, inferer = (
            workflow.parser.get_parsed_content(key) for key in ("scale", "trained_network", "inferer")
        )
        shapes = [[n // s for n, s in zip(result, scale, strict=True)]]
        shapes += [result] if runs.TINY[self.bundle].guided else []
        random = torch.Generator().manual_seed(0)
        volumes = [torch.rand(1, 1, *shape, generator=random).to(device) for shape in shapes]

        def infer() -> torch.Tensor:
            with torch.no_grad():
                sr = inferer(volumes[0], network, *volumes[1:])
            if list(sr.shape[2:]) != list(result):
                raise RuntimeError(f"the result has {tuple(sr.shape[2:])} voxels, expected {tuple(result)}")
            return sr

        return infer

    def timed(self) -> dict[str, object]:
        """Seconds for a volume in bf16 and in float32 as torch computes it by default, and memory in bf16."""
        figures = {}
        for name, amp in (("float32", False), ("bf16", True)):
            infer = self.call(self.sizes.result, self.device, amp)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            figures[f"seconds_{name}"] = seconds(infer, self.sizes.repeats)
        on_gpu = self.device.type == "cuda"
        return {**figures, "peak_gib": torch.cuda.max_memory_allocated(self.device) / 2**30 if on_gpu else None}

    def float32(self) -> dict[str, object]:
        """A small volume on the device against the CPU's."""
        with cudnn(allow_tf32=False):
            found = self.call(self.sizes.checked, self.device, amp=False)()
        worst = difference(found, self.call(self.sizes.checked, torch.device("cpu"), amp=False)())
        check("a result", worst, VOXELS)
        return {"result_difference": worst}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, and without what a run says."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        finally:
            logging.disable(logging.NOTSET)
