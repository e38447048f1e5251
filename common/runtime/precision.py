"""Precision of the networks, which is the engine's: inferers and losses are in float32 always."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Autocast(nn.Module):
    """A network that runs under autocast and gives float32; its attributes are the network's.

    Args:
        network: to run.
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
        """What the network gives, as float32."""
        with torch.autocast(**self.autocast):
            return self.network(*inputs, **named).float()


def plain(network: Any) -> Any:
    """The network without autocast."""
    return network.network if isinstance(network, Autocast) else network


def in_precision(network: nn.Module, device: torch.device, amp: bool, kwargs: dict | None) -> nn.Module:
    """The network, under autocast where ``amp`` says so; ``kwargs`` are its own, by default bfloat16."""
    if not amp:
        return network
    return Autocast(network, device_type=torch.device(device).type, **(kwargs or {"dtype": torch.bfloat16}))
