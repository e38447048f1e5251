"""The machine that computes."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch


def name_machine(device: torch.device) -> str:
    """The model of a device's GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")  # on Linux, where Python knows only the architecture
    models = re.findall(r"(?m)^model name\s*: (.+)$", info.read_text()) if info.is_file() else []
    return models[0] if models else platform.processor() or platform.machine()
