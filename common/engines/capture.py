"""The GPU's work of an iteration, recorded as one CUDA graph."""

from __future__ import annotations

import contextlib
import gc
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from ..io.naming import format_first_cause
from ..losses.table import ChangingWeight
from .player import Player

_WARM_UP = 3  # iterations before the recording
_WAITS = ".*synchronizing CUDA"  # torch's warning if the processor waits
_CAPTURABLE = ".*constructed with capturable=True"  # torch's warning in iterations before the recording


class IterationCapture:
    """Records the GPU's work of an iteration as one CUDA graph, and replays it in all later iterations.

    The processor then starts one graph instead of thousands of kernels, so the GPU does not wait for it. The first
    iterations are computed as usual, on the stream of the recording, so that all buffers exist. The next iteration is
    recorded with fixed tensors for the batch, the learning rates and the result. Before each replay, a batch and the
    learning rates are copied to these tensors. A batch of another shape than the first is computed as usual.

    A replay runs no Python. If an iteration changes Python values of a module or draws random numbers on the processor,
    it is not recorded. If players' options or parameters change later, the recording is given up. Iterations are then
    computed as usual, and a line says why.

    Args:
        play: the GPU's work of an iteration: tensors by name to any structure of tensors.
        graph: the networks.
        players: by name.
        device: of the training.
        record: whether to record iterations. Losses and weights do not depend on it, to the last bit, if the players'
            optimizers are fused.

    Attributes:
        reason: why iterations are not recorded, or None.
    """

    def __init__(
        self,
        play: Callable[[dict[str, torch.Tensor]], Any],
        graph: nn.Module,
        players: Mapping[str, Player],
        device: torch.device,
        record: bool,
    ) -> None:
        self.play, self.graph, self.players, self.device = play, graph, players, device
        self.reason: str | None = None if record else "cuda_graph is off"
        self._done = 0
        self._recording: Any = None

    @property
    def is_recorded(self) -> bool:
        """Whether iterations are replayed."""
        return self._recording is not None

    def __call__(self, batch: dict[str, torch.Tensor]) -> Any:
        """Do the work of an iteration; the result is valid until the next call."""
        if self._done == 0:
            self._prepare_recording(batch)
        self._done += 1
        for group, rate in self._rates:
            rate.fill_(group["lr"])
        same = {name: tensor.shape for name, tensor in batch.items()} == self._shapes
        if self.reason is None and self._done <= _WARM_UP:
            return self._warm_up(batch)
        if self.reason is None and self._recording is None and same:
            self._record(batch)
        if self._recording is not None and (changed := _find_change(self._options, self._read_options())):
            self._abandon_recording(f"{changed} changed")
        if self._recording is None or not same:
            with self._put_rates_on_device():
                return self.play(batch)
        for name, tensor in self._batch.items():
            tensor.copy_(batch[name])
        self._recording.replay()
        return self._result

    def _prepare_recording(self, batch: dict[str, torch.Tensor]) -> None:
        if self.reason is None and (reason := self._find_obstacle()):
            self._abandon_recording(reason)
        groups = [group for player in self.players.values() for group in player.optimizer.param_groups]
        # A GPU rounds its learning rate; so do iterations that are not recorded, and training is the same.
        on_device = [group for group in groups if self.device.type == "cuda" and _can_read_rate(group)]
        self._rates = [(group, torch.zeros((), device=self.device)) for group in on_device]
        self._shapes = {name: tensor.shape for name, tensor in batch.items()}
        if self.reason is None:
            gc.collect()  # an earlier training's autograd nodes have another stream
            self._side = torch.cuda.Stream(self.device)

    def _find_obstacle(self) -> str | None:
        """Why iterations cannot be recorded, as far as it is known before the first."""
        if self.device.type != "cuda":
            return f"the device is {self.device}, not a GPU"
        if dist.is_initialized() and dist.get_backend() != "nccl":
            return f"the processes are joined by {dist.get_backend()}, not by nccl"
        for name, player in self.players.items():
            if player.scaler.is_enabled():
                return "with float16, the processor looks at the gradients"
            if not all(_can_read_rate(group) for group in player.optimizer.param_groups):
                return f"{type(player.optimizer).__name__}, the optimizer of the player '{name}', is not capturable"
        return None

    def _abandon_recording(self, reason: str) -> None:
        self.reason, self._recording = reason, None
        for player in self.players.values():
            for group in player.optimizer.param_groups:
                if group.get("fused"):
                    group["capturable"] = False  # about which torch would warn
        if not dist.is_initialized() or dist.get_rank() == 0:
            tqdm.write(f"cuda_graph: iterations are not recorded, because {reason}.")

    @contextlib.contextmanager
    def _put_rates_on_device(self) -> Iterator[None]:
        """Let the optimizers read their learning rates on the GPU; schedulers compute them on the processor."""
        computed = [group["lr"] for group, _ in self._rates]
        for group, rate in self._rates:
            group["lr"] = rate
        try:
            yield
        finally:
            for (group, _), rate in zip(self._rates, computed, strict=True):
                group["lr"] = rate

    def _warm_up(self, batch: dict[str, torch.Tensor]) -> Any:
        """Compute an iteration on the stream of the recording. The last one finds what cannot be recorded."""
        last, mode = self._done == _WARM_UP, torch.cuda.get_sync_debug_mode()
        before = self._read_python_values() if last else {}
        current = torch.cuda.current_stream(self.device)
        self._side.wait_stream(current)
        with warnings.catch_warnings(record=True) as caught, self._put_rates_on_device(), torch.cuda.stream(self._side):
            warnings.filterwarnings("ignore", _CAPTURABLE)
            warnings.filterwarnings("always", _WAITS)
            if last:
                torch.cuda.set_sync_debug_mode("warn")
            try:
                result = self.play(batch)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        current.wait_stream(self._side)
        for warning in caught:
            if "synchronizing CUDA" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            elif self.reason is None:
                place = "/".join(Path(warning.filename).parts[-3:])
                self._abandon_recording(f"the processor waits for the GPU in {place}, line {warning.lineno}")
        if last and self.reason is None and (changed := _find_change(before, self._read_python_values())):
            self._abandon_recording(f"an iteration changes {changed}")
        return result

    def _record(self, batch: dict[str, torch.Tensor]) -> None:
        """Record an iteration without computing it."""
        self._batch = {name: tensor.clone() for name, tensor in batch.items()}
        self._options = self._read_options()
        generator = torch.cuda.default_generators[self.device.index or 0]
        random_state, recording = generator.clone_state(), torch.cuda.CUDAGraph()
        gc.collect()  # what cycles keep would take memory of the graph
        # Other threads, such as NCCL's, may go on with work that a recording does not allow.
        capture = torch.cuda.graph(recording, stream=self._side, capture_error_mode="thread_local")
        try:
            with torch.cuda.stream(self._side), capture, self._put_rates_on_device():
                self._result = self.play(self._batch)
        except Exception as error:
            # torch before 2.13 would not draw again.
            generator.graphsafe_set_state(random_state)
            self._abandon_recording(f"the recording failed: {format_first_cause(error)}")
        else:
            self._recording = recording

    def _read_options(self) -> dict[str, Any]:
        """Values of the players that a recording fixes, by name."""
        values: dict[str, Any] = {}
        for name, player in self.players.items():
            groups = player.optimizer.param_groups
            fixed = [{key: group[key] for key in group if key not in ("params", "lr")} for group in groups]
            values[f"an option of the optimizer of the player '{name}'"] = fixed
            values[f"clip_norm of the player '{name}'"] = player.clip_norm
            for term, (weight, _, _) in player.losses.terms.items():
                value = weight.get_value() if isinstance(weight, ChangingWeight) else weight
                values[f"the weight of {name}/{term}, or its tensor,"] = value
            parameters = [(parameter.data_ptr(), parameter.requires_grad) for parameter in player.parameters]
            values[f"a parameter of the player '{name}'"] = parameters
        return values

    def _read_python_values(self) -> dict[str, Any]:
        """Values that Python code of an iteration may change, by name: random states, and attributes of modules."""
        keys: Any
        _, keys, position, *_ = np.random.get_state()
        values: dict[str, Any] = {
            "the random state of Python": random.getstate(),
            "the random state of NumPy": (keys.tolist(), position),
            "the random state of torch on the processor": torch.get_rng_state().tolist(),
        }
        roots: dict[str, Any] = {"the graph": self.graph}
        for name, player in self.players.items():
            roots |= {f"the loss {name}/{term}": loss for term, (_, loss, _) in player.losses.terms.items()}
        for name, root in roots.items():
            for path, module in root.named_modules() if isinstance(root, nn.Module) else ():
                attributes = {**vars(module), **module._buffers, **module._parameters}
                for key, value in attributes.items():
                    if isinstance(value, (bool, int, float, str, torch.Tensor)):
                        values[f"{key} of {name} {path}".rstrip()] = value
        return values


def _can_read_rate(group: Mapping[str, Any]) -> bool:
    """Whether an optimizer can read its learning rate on the GPU; SGD, which has no option "capturable", if fused."""
    return bool(group.get("capturable") or group.get("fused"))


def _find_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The name of the first value that is not as before, or None. A tensor must be the same object."""
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        tensors = isinstance(old, torch.Tensor) or isinstance(new, torch.Tensor)
        if old is not new and (tensors or old != new):
            return name
    return None
