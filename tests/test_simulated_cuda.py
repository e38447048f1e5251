"""The simulated device refuses what CUDA refuses, takes what CUDA takes, and counts what the host waits for."""

import copy
import io
import json

import numpy as np
import torch
from monai.data import MetaTensor
from torch.nn import functional as F

from . import simulated_cuda

REFUSED = [
    "gpu + cpu",
    "gpu.mul_(cpu)",
    "torch.tensor(1.0).add_(gpu.sum())",
    "torch.cat([gpu, cpu])",
    "gpu @ cpu",
    "gpu + torch.zeros(3, 3)",
    "gpu + torch.arange(3)",
    "gpu + torch.tensor([1.0, 2.0, 3.0])",
    "gpu + torch.linspace(0, 1, 3)",
    "torch.where(gpu > 0, gpu, cpu)",
    "gpu.index_select(0, torch.tensor([0, 1]))",
    "gpu.gather(0, torch.zeros(1, 3, dtype=torch.long))",
    "gpu.scatter(0, torch.zeros(1, 3, dtype=torch.long), 1.0)",
    "cpu[torch.zeros(2, dtype=torch.long, device='cuda')]",
    "gpu.__setitem__(torch.tensor([0, 1]), cpu[:2])",
    "F.conv2d(gpu[None, None], torch.ones(1, 1, 2, 2))",
    "torch.nn.Linear(3, 3)(gpu)",
    "torch.nn.BatchNorm1d(3)(gpu)",
    "torch.randn(3, device='cuda', generator=torch.Generator())",
    "gpu.normal_(generator=torch.Generator())",
    "gpu.numpy()",
    "np.asarray(gpu)",
    "np.testing.assert_allclose(gpu, 0)",
    "gpu.to('cuda:1')",
    "torch.set_rng_state(torch.get_rng_state().cuda())",
    "torch.fft.rfftn(gpu.bfloat16())",
]
TAKEN = [
    "gpu + 1.0",
    "gpu * torch.tensor(2.0)",
    "gpu + torch.zeros_like(gpu)",
    "gpu + gpu.new_ones(3)",
    "gpu + cpu.to(gpu)",
    "gpu + cpu.to('cuda', torch.float64)",
    "gpu + torch.arange(3, device=gpu.device)",
    "torch.nn.Linear(3, 3).cuda()(gpu)",
    "copy.deepcopy(gpu) + gpu",
    "MetaTensor(gpu) + gpu",
    "loaded(gpu) + gpu",
    "loaded(gpu, map_location='cuda') + gpu",
    "cpu + loaded(gpu, map_location='cpu')",
    "cpu + gpu.cpu()",
    "cpu + torch.from_numpy(gpu.cpu().numpy())",
    "torch.fft.rfftn(gpu)",
    "gpu + cpu.type_as(gpu)",
    "gpu + gpu.new_tensor([1.0, 2.0, 3.0])",
    "gpu + torch.asarray([1.0, 2.0, 3.0], device='cuda')",
    "gpu + F.one_hot(torch.arange(3, device='cuda'))",
    "gpu + torch.empty(3, 3, pin_memory=True).fill_(1).to(gpu.device, non_blocking=True)",
]
WAITS = {
    "gpu + 1": 0,
    "gpu.sum() > 0": 0,
    "gpu.sum().item()": 1,
    "float(gpu.sum())": 1,
    "bool((gpu > 0).all())": 1,
    "gpu.tolist()": 1,
    "gpu.cpu()": 1,
    "cpu.to(gpu.device)": 1,
    "gpu.to(gpu.device)": 0,
    "torch.tensor([1.0], device='cuda')": 1,
    "torch.zeros(3, device='cuda')": 0,
    "gpu.copy_(cpu)": 1,
    "gpu[gpu > 0]": 1,
    "gpu[torch.tensor([0, 1])]": 1,
    "gpu[torch.zeros(2, dtype=torch.long, device='cuda')]": 0,
    "gpu[:2]": 0,
    "gpu.nonzero()": 1,
    "gpu.unique_consecutive()": 1,
    "torch.linalg.solve(gpu + torch.eye(3, device='cuda'), gpu)": 1,
}


def evaluate(device, path):
    """In the process that has the device: what it says to each expression, and the waits that it counts."""

    def loaded(tensor, **where):
        file = io.BytesIO()
        torch.save(tensor, file)
        file.seek(0)
        return torch.load(file, **where)

    names = {"torch": torch, "np": np, "F": F, "copy": copy, "MetaTensor": MetaTensor, "loaded": loaded}
    said, waits = {}, {}
    for expression in (*REFUSED, *TAKEN, *WAITS):
        names |= {"gpu": torch.ones(3, 3).cuda(), "cpu": torch.ones(3, 3)}
        device.begin()
        try:
            eval(expression, names)
            said[expression] = "taken"
        except (simulated_cuda.DeviceError, TypeError) as error:
            said[expression] = str(error)
        waits[expression] = sum(device.phase.waits.values())
    path.write_text(json.dumps([said, waits]))


def test_it_refuses_what_cuda_refuses_and_counts_waits(tmp_path):
    simulated_cuda.Run(tmp_path / "log.txt", f"{__name__}:evaluate", tmp_path / "said.json").finish()
    said, waits = json.loads((tmp_path / "said.json").read_text())
    for expression in REFUSED:
        assert "device" in said[expression] or "cuda" in said[expression], (expression, said[expression])
    assert {expression: said[expression] for expression in TAKEN} == dict.fromkeys(TAKEN, "taken")
    assert {expression: waits[expression] for expression in WAITS} == WAITS


def play(device):
    """In the process that has the device."""
    gpu = torch.ones(3, device="cuda", requires_grad=True)
    assert (gpu.device, gpu.is_cuda, (gpu * 2).sum().device) == (torch.device("cuda:0"), True, gpu.device)
    optimizer = torch.optim.Adam([gpu])
    (gpu**2).sum().backward()
    optimizer.step()
    state = optimizer.state[gpu]
    assert (gpu.grad.is_cuda, state["exp_avg"].is_cuda, state["step"].is_cuda) == (True, True, False)
    saved = torch.cuda.get_rng_state()
    drawn, of_cpu = [torch.rand(3, device="cuda") for _ in range(2)], torch.get_rng_state()
    torch.cuda.set_rng_state(saved)
    assert torch.equal(torch.rand(3, device="cuda"), drawn[0]) and torch.equal(torch.get_rng_state(), of_cpu)


def test_it_trains_and_draws_random_numbers_of_its_own(tmp_path):
    failure = simulated_cuda.Run(tmp_path / "log.txt", f"{__name__}:play").failure()
    assert not failure, failure
