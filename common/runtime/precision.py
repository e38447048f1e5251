"""Precision of the networks. Engines set it; inferers and losses always use float32."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from .memory import to_channels_last
from .threads import use_one_thread

_WORTH = 1.3  # times as fast as float32
_REPEATS = 8
_LEAST = 1000  # weights of a convolution; a smaller one gains less than the overhead of its operators
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_WORK = 2 * 10**8  # approximate multiply-adds of a timed convolution
_PIXELS = 4096  # at most


class Autocast(nn.Module):
    """A network that runs under autocast and returns float32. It has the attributes of the network.

    Args:
        network: the network to run.
        autocast: arguments of ``torch.autocast``, with ``device_type``.
    """

    def __init__(self, network: nn.Module, **autocast: Any) -> None:
        super().__init__()
        self.network, self.autocast = network, autocast

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
        """The output of the network, as float32."""
        with torch.autocast(**self.autocast):
            return self.network(*inputs, **named).float()


def unwrap_autocast(network: Any) -> Any:
    """The network without autocast."""
    return network.network if isinstance(network, Autocast) else network


def name_precision(network: Any) -> str:
    """The type of the numbers that a network computes in, such as "bfloat16"."""
    return _name_dtype(network.autocast["dtype"] if isinstance(network, Autocast) else torch.float32)


def match_precision(network: nn.Module, other: nn.Module) -> nn.Module:
    """The other network, in the precision of a network."""
    return (
        Autocast(unwrap_autocast(other), **network.autocast)
        if isinstance(network, Autocast)
        else unwrap_autocast(other)
    )


def apply_precision(network: nn.Module, device: torch.device, amp: bool | None, kwargs: dict | None) -> nn.Module:
    """The network, under autocast if ``amp`` is true; ``kwargs`` are autocast's, by default bfloat16."""
    if not amp:
        return network
    kind = torch.device(device).type
    # On a CPU no cache of cast weights, because several threads run the network in parallel.
    defaults = {"device_type": kind, "dtype": torch.bfloat16, "cache_enabled": kind != "cpu"}
    return Autocast(network, **(defaults | (kwargs or {})))


def choose_precision(
    network: nn.Module, device: torch.device, amp: bool | None = None, amp_kwargs: dict | None = None
) -> nn.Module:
    """The network in the precision that it runs in: under autocast, if :func:`choose_autocast` says so.

    Args:
        network, device, amp: as there.
        amp_kwargs: arguments of ``torch.autocast``; default bfloat16.
    """
    amp = choose_autocast(amp, network, device, amp_kwargs)
    return apply_precision(network, device, amp, amp_kwargs)


def choose_autocast(
    amp: bool | None, network: nn.Module, device: torch.device, kwargs: dict | None = None, training: bool = False
) -> bool:
    """Decide whether networks run under autocast: by ``amp``; if that is None, on a GPU, or if it is faster on a CPU.

    On a CPU, the convolution with the most weights, or without convolutions the linear layer, is timed in float32 and
    under autocast, for tens of milliseconds or a little longer for a wide layer. Autocast must be 1.3 times as fast. Of
    several connected processes, the first decides. A line is printed if autocast was chosen.

    Args:
        amp: the setting, or None.
        network: the network to run, or a module that holds several.
        device: device of the network.
        kwargs: arguments of ``torch.autocast``; default bfloat16.
        training: whether gradients are computed too.
    """
    if amp is not None or torch.device(device).type != "cpu":
        return torch.device(device).type == "cuda" if amp is None else amp
    dtype = (kwargs or {}).get("dtype", torch.bfloat16)
    gain = torch.tensor(_measure_gain(network, dtype, training))
    if dist.is_initialized():
        dist.broadcast(gain, src=0)
    if gain >= _WORTH:
        print(f"networks compute in {_name_dtype(dtype)}, {gain:.1f} times as fast as float32 here", flush=True)
    return bool(gain >= _WORTH)


def _name_dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _measure_gain(network: nn.Module, dtype: torch.dtype, training: bool) -> float:
    """Speed under autocast over speed in float32 of the largest convolution or linear layer; 1 if all are small."""
    layers: Any = network.modules()
    large = [each for each in layers if type(each) in (*_CONVOLUTIONS, nn.Linear) and each.weight.numel() >= _LEAST]
    known = [layer for layer in large if type(layer) in _CONVOLUTIONS] or large
    if not known:
        return 1.0
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with use_one_thread(), torch.inference_mode(False), torch.set_grad_enabled(training):
        layer = copy.deepcopy(max(known, key=lambda layer: layer.weight.numel())).requires_grad_(training)
        image = _make_input(layer).requires_grad_(training)
        for _ in range(1 + _REPEATS):  # the first is a warm-up
            for reduced, taken in seconds.items():
                start = time.perf_counter()
                with torch.autocast("cpu", dtype, enabled=reduced, cache_enabled=False):
                    result = layer(image)
                if training:
                    result.sum().backward()
                taken.append(time.perf_counter() - start)
    return min(seconds[False][1:]) / min(seconds[True][1:])


def _make_input(layer: Any) -> torch.Tensor:
    """An input for a layer; a 2-D convolution and its input get the layout of slabs."""
    pixels = min(_PIXELS, _WORK / layer.weight.numel())
    if isinstance(layer, nn.Linear):
        return torch.ones(round(pixels), layer.in_features)
    edge = round(pixels ** (1 / len(layer.kernel_size)))
    image = torch.ones(1, layer.in_channels, *[max(edge, length) for length in layer.kernel_size])
    return image.to(memory_format=torch.channels_last) if to_channels_last(layer, "cpu").weight.ndim == 4 else image
