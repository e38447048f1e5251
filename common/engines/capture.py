"""The GPU's work of an iteration, recorded as one CUDA graph."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from ..io.naming import root_cause
from .player import Player

_WARM_UP = 3  # iterations before the recording
_WAITS = ".*synchronizing CUDA"  # torch's warning if the processor waits
_CAPTURABLE = ".*constructed with capturable=True"  # torch's warning in iterations before the recording


class IterationCapture:
    """Records the GPU's work of an iteration as one CUDA graph, and replays it in all later iterations.

    The processor then starts one graph instead of thousands of kernels, so the GPU does not wait for it. The first
    iterations are computed as usual, on the stream of the recording, so that all buffers exist. The next iteration is
    recorded with fixed tensors for the batch, the learning rates and the result. Before each replay, a batch and the
    learning rates are copied to these tensors.

    A replay runs no Python. So ``play`` must not depend on Python values that change, and buffers and changing weights
    of losses must be changed in place.

    If an iteration cannot be recorded, or an optimizer's options or the tensor of a changing weight change, iterations
    are computed as usual, and a line says why. So is a batch of another shape than the recorded one.

    Args:
        play: the GPU's work of an iteration: tensors by name to any structure of tensors.
        players: by name; their optimizers are capturable.
        device: of the training.

    Attributes:
        reason: why iterations are not recorded, or None.
    """

    def __init__(
        self,
        play: Callable[[dict[str, torch.Tensor]], Any],
        players: Mapping[str, Player],
        device: torch.device,
    ) -> None:
        self.play, self.players, self.device = play, players, device
        self.reason: str | None = None
        self._done = 0
        self._graph: Any = None

    @property
    def recorded(self) -> bool:
        """Whether iterations are replayed."""
        return self._graph is not None

    def __call__(self, batch: dict[str, torch.Tensor]) -> Any:
        """Do the work of an iteration; the result is valid until the next call."""
        self._done += 1
        if self._done == 1:
            self._begin()
        if self.reason is not None:
            return self.play(batch)
        for group, rate in self._rates:
            rate.fill_(group["lr"])
        if self._done <= _WARM_UP:
            return self._warm_up(batch)
        if self._graph is None:
            self._record(batch)
        elif any(weight.value() is not factor for weight, factor in self._factors):
            self._give_up("a weight of a schedule has a new tensor")
        elif [_read_options(group) for group, _ in self._rates] != self._options:
            self._give_up("options of an optimizer have changed, besides its learning rate")
        if self._graph is None or _read_shapes(batch) != _read_shapes(self._batch):
            with self._put_rates_on_device():
                return self.play(batch)
        for name, tensor in self._batch.items():
            tensor.copy_(batch[name])
        self._graph.replay()
        return self._result

    def _begin(self) -> None:
        if reason := self._find_obstacle():
            self._give_up(reason)
            return
        groups = [group for player in self.players.values() for group in player.optimizer.param_groups]
        self._rates = [(group, torch.zeros((), device=self.device)) for group in groups]
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
            # SGD has no option "capturable"; fused, it reads its learning rate on the GPU.
            if not all(group.get("capturable", group.get("fused")) for group in player.optimizer.param_groups):
                return f"{type(player.optimizer).__name__}, the optimizer of the player '{name}', is not capturable"
        return None

    def _give_up(self, reason: str) -> None:
        self.reason, self._graph = reason, None
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
        """Compute an iteration on the stream of the recording. The last one finds where the processor waits."""
        mode = torch.cuda.get_sync_debug_mode()
        current = torch.cuda.current_stream(self.device)
        self._side.wait_stream(current)
        with warnings.catch_warnings(record=True) as found, self._put_rates_on_device(), torch.cuda.stream(self._side):
            warnings.filterwarnings("ignore", _CAPTURABLE)
            warnings.filterwarnings("always", _WAITS)
            if self._done == _WARM_UP:
                torch.cuda.set_sync_debug_mode("warn")
            try:
                result = self.play(batch)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        current.wait_stream(self._side)
        for warning in found:
            if "synchronizing CUDA" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            elif self.reason is None:
                place = "/".join(Path(warning.filename).parts[-3:])
                self._give_up(f"the processor waits for the GPU in {place}, line {warning.lineno}")
        return result

    def _record(self, batch: dict[str, torch.Tensor]) -> None:
        """Record an iteration without computing it."""
        self._batch = {name: tensor.clone() for name, tensor in batch.items()}
        weights = [weight for player in self.players.values() for weight in player.losses.changing]
        self._factors = [(weight, weight.value()) for weight in weights]
        self._options = [_read_options(group) for group, _ in self._rates]
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as NCCL's, may go on with work that a recording does not allow.
        recording = torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local")
        try:
            with torch.cuda.stream(self._side), recording, self._put_rates_on_device():
                self._result = self.play(self._batch)
        except RuntimeError as error:
            self._give_up(f"the recording failed: {root_cause(error)}")
        else:
            self._graph = graph


def _read_options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an optimizer that a recording fixes."""
    return {name: value for name, value in group.items() if name not in ("params", "lr")}


def _read_shapes(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in batch.items()}
