"""A network that onnxruntime runs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import nn

from ..degradations import Degradation
from ..weights import check_digest, check_grid, read_overlay

NO_SEAL = b"0" * 64


def seal_model(content: bytes) -> bytes:
    """Put the SHA-256 of an ONNX file in the place that its metadata keeps for it (``NO_SEAL``).

    The format has no checksums, so a damaged weight would not be noticed.
    """
    return content.replace(NO_SEAL, hashlib.sha256(content).hexdigest().encode())


class OnnxNetwork(nn.Module):
    """An exported network (``models/model.onnx``) instead of the eager one.

    It runs on the CPU, or on the GPU if onnxruntime-gpu is installed. ``origin`` is as of
    :func:`common.weights.load_weights`.

    Args:
        path: the file models/model.onnx of an exported bundle, with its overlay models/model.json.
        digest: of the weights, from the config; None if the config has none.
        degradation: of the config; the overlay must have the same scale and positions of LR voxels.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if onnxruntime is not installed.
        ValueError: if onnxruntime cannot read the file, it was changed since its export, or it does not belong to its
            overlay or to the config.
    """

    def __init__(
        self, path: str | os.PathLike, digest: str | None = None, degradation: Degradation | None = None
    ) -> None:
        super().__init__()
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no ONNX model at {path}; make one: export the bundle.")
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("ONNX models need onnxruntime: pip install onnxruntime.") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # Not TensorRT, which needs minutes to build.
        available = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise ValueError(f"{path}: not an ONNX model that can be read ({str(error).splitlines()[0]}).") from None
        metadata, content = self.session.get_modelmeta().custom_metadata_map, Path(path).read_bytes()
        seal, digest_of_model = metadata.get("seal"), metadata.get("digest")
        if seal is not None and seal_model(content.replace(seal.encode(), NO_SEAL)) != content:
            raise ValueError(f"{path}: the file was changed since its export (its SHA-256 differs); export it again.")
        overlay = read_overlay(path) or {}
        if degradation is not None:
            check_grid(path, overlay, degradation)
        check_digest(path, digest_of_model, overlay, digest)
        file_sha256 = hashlib.sha256(content).hexdigest()
        self.origin = {**overlay.get("trained", {}), "path": str(path), "file_sha256": file_sha256}
        if digest_of_model is not None:
            self.origin["sha256"] = digest_of_model
        self.inputs = {value.name for value in self.session.get_inputs()}

    def forward(self, image: torch.Tensor, choice: int = -1) -> torch.Tensor:
        """The network's output for an image, float32.

        ``choice`` is a further input, if it has one: the stage of a cascade, or the axis across a slab; -1 is the last.
        """
        feeds = {"image": image.detach().float().cpu().contiguous().numpy()}
        for name in self.inputs - {"image"}:
            feeds[name] = torch.tensor(choice).numpy()
        (pred,) = self.session.run(None, feeds)
        return torch.from_numpy(pred).to(image.device)
