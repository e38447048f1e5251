"""Where an exported network is computed."""

import onnxruntime
import pytest

from common.networks import OnnxNetwork

CPU, CUDA, TENSORRT, AZURE = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt", "Azure"))


@pytest.mark.parametrize(("build", "chosen"), [([TENSORRT, CUDA, CPU], [CUDA, CPU]), ([AZURE, CPU], [CPU])])
def test_on_cuda_or_the_cpu_and_nowhere_else(build, chosen, tmp_path, monkeypatch):
    """TensorRT, which onnxruntime-gpu names first, would build an engine for minutes."""
    asked = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: build)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, providers: asked.append(providers))
    (tmp_path / "model.onnx").touch()
    with pytest.raises(AttributeError):  # there is no session to go on with
        OnnxNetwork(tmp_path / "model.onnx")
    assert asked[0] == chosen
