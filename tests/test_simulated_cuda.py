"""The simulated device refuses what CUDA refuses, and takes what CUDA takes."""

import copy
import io
import json
import re

import numpy as np
import torch
from monai.data import MetaTensor
from torch.nn import functional as F

from . import simulated_cuda

REFUSED = """gpu + cpu | gpu.mul_(cpu) | torch.tensor(1.0).add_(gpu.sum()) | torch.cat([gpu, cpu]) | gpu @ cpu
gpu + torch.tensor([1.0, 2.0, 3.0]) | torch.where(gpu > 0, gpu, cpu) | gpu.index_select(0, torch.tensor([0, 1]))
gpu.scatter(0, torch.zeros(1, 3, dtype=torch.long), 1.0) | cpu[torch.zeros(2, dtype=torch.long, device='cuda')]
gpu.__setitem__(torch.tensor([0, 1]), cpu[:2]) | F.conv2d(gpu[None, None], torch.ones(1, 1, 2, 2))
torch.nn.BatchNorm1d(3)(gpu) | torch.randn(3, device='cuda', generator=torch.Generator())
gpu.normal_(generator=torch.Generator()) | gpu.numpy() | np.asarray(gpu) | gpu.to('cuda:1')
torch.set_rng_state(torch.get_rng_state().cuda()) | gpu.pin_memory() | torch.fft.rfftn(gpu.bfloat16())""".replace(
    "\n", " | "
).split(" | ")
# What is taken.
TAKEN = """gpu + 1.0 | gpu * torch.tensor(2.0) | gpu + torch.zeros_like(gpu)
gpu + torch.arange(3, device=gpu.device) | MetaTensor(gpu) + gpu | loaded(gpu) + gpu
loaded(gpu, map_location='cuda') + gpu | cpu + loaded(gpu, map_location='cpu') | torch.fft.rfftn(gpu)
gpu.to(gpu.device) | torch.zeros(3, device='cuda') | gpu[torch.zeros(2, dtype=torch.long, device='cuda')] | gpu[:2]
cpu + gpu.to('cpu', non_blocking=True)
gpu + torch.empty(3, 3, pin_memory=True).fill_(1).to(gpu.device, non_blocking=True)
gpu + cpu.pin_memory().to('cuda', non_blocking=True) | gpu.copy_(cpu.pin_memory(), non_blocking=True)
torch.empty(3, 3, pin_memory=True).copy_(gpu, non_blocking=True) | gpu + cpu.to(gpu)
gpu + cpu.to('cuda', torch.float64) | gpu + cpu.type_as(gpu) | gpu + gpu.new_tensor([1.0, 2.0, 3.0])
gpu + torch.asarray([1.0, 2.0, 3.0], device='cuda') | gpu + F.one_hot(torch.arange(3, device='cuda'))
torch.linalg.solve(gpu + torch.eye(3, device='cuda'), gpu) | gpu + cpu.to(gpu.device, non_blocking=True)
gpu + cpu.pin_memory().to(gpu.device) | copy.deepcopy(gpu) + gpu
gpu + cpu.pin_memory().to('cuda', torch.float64, non_blocking=True) | gpu.copy_(cpu, non_blocking=True)
torch.empty(3, 3, pin_memory=True).copy_(gpu) | cpu.copy_(gpu, non_blocking=True)
cpu + torch.from_numpy(gpu.cpu().numpy()) | gpu.sum().item() | float(gpu.sum()) | bool((gpu > 0).all())
gpu.tolist() | torch.tensor([1.0], device='cuda') | gpu.copy_(cpu) | gpu[gpu > 0] | gpu[torch.tensor([0, 1])]
gpu.nonzero() | gpu.unique_consecutive() | cpu + gpu.cpu()
torch.nn.Linear(3, 3).cuda()(gpu)""".replace("\n", " | ").split(" | ")


def play(device, path):
    """In the process that has the device: train, draw numbers, and write what it says to each expression."""
    gpu = torch.ones(3, device="cuda", requires_grad=True)
    assert (gpu.device, gpu.is_cuda, (gpu * 2).sum().device) == (torch.device("cuda:0"), True, gpu.device)
    (gpu**2).sum().backward()
    (optimizer := torch.optim.Adam([gpu])).step()
    state = optimizer.state[gpu]
    assert (gpu.grad.is_cuda, state["exp_avg"].is_cuda, state["step"].is_cuda) == (True, True, False)
    saved = torch.cuda.get_rng_state()
    drawn, of_cpu = [torch.rand(3, device="cuda") for _ in range(2)], torch.get_rng_state()
    torch.cuda.set_rng_state(saved)
    assert torch.equal(torch.rand(3, device="cuda"), drawn[0]) and torch.equal(torch.get_rng_state(), of_cpu)

    def loaded(tensor, **where):
        file = io.BytesIO()
        torch.save(tensor, file)
        file.seek(0)
        return torch.load(file, **where)

    names = {"torch": torch, "np": np, "F": F, "copy": copy, "MetaTensor": MetaTensor, "loaded": loaded}
    said = {}
    for expression in REFUSED + TAKEN:
        names |= {"gpu": torch.ones(3, 3).cuda(), "cpu": torch.ones(3, 3)}
        try:
            eval(expression, names)
        except (simulated_cuda.DeviceError, TypeError) as error:
            said[expression] = str(error)
    path.write_text(json.dumps(said))


def test_it_refuses_what_cuda_refuses_and_trains(tmp_path):
    simulated_cuda.Run(tmp_path / "log.txt", f"{__name__}:play", tmp_path / "said.json").finish()
    said = json.loads((tmp_path / "said.json").read_text())
    assert said.keys() == set(REFUSED), said
    for expression in REFUSED:
        assert re.search("device|cuda", said[expression]), (expression, said[expression])
