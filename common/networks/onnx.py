"""A network that onnxruntime runs."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn


class OnnxNetwork(nn.Module):
    """An exported network (``models/model.onnx``) in the place of the eager one.

    It runs on the CPU, or on the GPU where onnxruntime-gpu is installed; the result is on the input's device.

    Args:
        path: of the file, models/model.onnx of an exported bundle.

    Raises:
        FileNotFoundError: when there is no such file.
        ImportError: when onnxruntime is not installed.
        ValueError: when onnxruntime cannot read the file.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__()
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no ONNX model at {path}; export the bundle first, which makes one.")
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("ONNX models need onnxruntime: pip install onnxruntime.") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:
            raise ValueError(f"{path}: not an ONNX model that can be read ({str(error).splitlines()[0]}).") from None
        self.inputs = {value.name for value in self.session.get_inputs()}

    def forward(self, image: torch.Tensor, stage: int = -1) -> torch.Tensor:
        """Apply the network.

        Args:
            image: as the network takes it.
            stage: of a cascade, counted from 0; -1, the default, is the last.

        Returns:
            As the network gives it, float32.
        """
        feeds = {"image": image.detach().float().cpu().contiguous().numpy()}
        if "stage" in self.inputs:
            feeds["stage"] = torch.tensor(stage).numpy()
        (pred,) = self.session.run(None, feeds)
        return torch.from_numpy(pred).to(image.device)
