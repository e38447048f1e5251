"""Batch norm over two processes with half the batch each is that of one process with the whole."""

import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from common.networks.batch_norm import synchronise_batch_norm

from ..refused import refused

BATCH = 4


def network_of():
    torch.manual_seed(0)
    norms = nn.BatchNorm2d(3), nn.BatchNorm2d(2, momentum=0.3)
    return nn.Sequential(nn.Conv2d(2, 3, 3), norms[0], nn.ReLU(), nn.Conv2d(3, 2, 3), norms[1])


def passes(network, start, stop):
    """Of samples start to stop of a batch: outputs in training, gradients, the state, and an output in evaluation."""
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(BATCH, 2, 9, 8, generator=generator) * torch.tensor([1.0, 2, 4, 8])[:, None, None, None]
    samples += torch.arange(BATCH)[:, None, None, None]  # so half of the batch has other statistics than the whole
    target = torch.randn(BATCH, 2, 5, 4, generator=generator)
    x, outputs = samples[start:stop].requires_grad_(), []
    for _ in range(2):  # twice, for the running statistics
        outputs.append(network(x))
        ((outputs[-1] - target[start:stop]) ** 3).sum().backward()
    of_samples = {"first": outputs[0].detach(), "second": outputs[1].detach(), "input gradient": x.grad}
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    return of_samples | {"evaluated": network.eval()(x).detach()}, gradients, state


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    synchronise_batch_norm(network := network_of())
    found = passes(network, rank * BATCH // 2, (rank + 1) * BATCH // 2)
    for gradient in found[1].values():
        dist.all_reduce(gradient)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one_with_the_whole_batch(tmp_path):
    """In outputs, gradients and statistics; unless they are joined they are refused."""
    refused(lambda: synchronise_batch_norm(network_of()), RuntimeError, "not initialised")
    multiprocessing.spawn(work, (tmp_path,), nprocs=2)
    halves = [torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in range(2)]
    of_samples, gradients, state = passes(network_of(), 0, BATCH)
    for name, value in of_samples.items():
        joined = torch.cat([half[0][name] for half in halves])
        atol = 1e-4 * value.abs().max().item() if name in ("input gradient", "evaluated") else 1e-5
        torch.testing.assert_close(joined, value, atol=atol, rtol=1e-4, msg=name)
    biases = {name: gradients.pop(name) for name in ("0.bias", "3.bias")}  # 0 up to rounding
    for _, own, own_state in halves:
        torch.testing.assert_close({name: own.pop(name) for name in biases}, biases, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close([own, own_state], [gradients, state], atol=1e-5, rtol=1e-3)
    alone = passes(network_of(), 0, BATCH // 2)[0]["first"]
    assert not torch.allclose(alone, of_samples["first"][: BATCH // 2], atol=0.1)
