"""Batch norm over two processes with half the batch each is that of one process with the whole."""

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from common.data import SliceLoader, VolumeCache
from common.engines import AlternatingTrainer, Player
from common.graph import TensorGraph
from common.networks import Concatenate, GuidedRDN
from common.networks.batch_norm import synchronise_batch_norm

BATCH = 4


def network_of():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, momentum=0.3)
    )


def passes(network, start, stop):
    """Of samples start to stop of a batch: outputs in training, gradients, the state, and an output in evaluation."""
    generator = torch.Generator().manual_seed(1)
    # The samples differ, so that half of the batch has other statistics than the whole.
    samples = torch.randn(BATCH, 2, 9, 8, generator=generator) * torch.tensor([1.0, 2, 4, 8])[:, None, None, None]
    samples += torch.arange(BATCH)[:, None, None, None]
    target = torch.randn(BATCH, 2, 5, 4, generator=generator)
    x = samples[start:stop].requires_grad_()
    outputs = []
    for _ in range(2):  # twice, for the running statistics
        outputs.append(network(x))
        ((outputs[-1] - target[start:stop]) ** 3).sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    return {
        "outputs": [y.detach() for y in outputs],
        "input gradient": x.grad,
        "gradients": gradients,
        "state": state,
        "evaluated": network.eval()(x).detach(),
    }


def training():
    """A short training of a small guided network: losses and the state at its end."""
    torch.manual_seed(0)
    volume = torch.rand(1, 20, 20, 3, generator=torch.Generator().manual_seed(0))
    volumes = VolumeCache([{"hr": "0.nii"}], lambda _: {"hr": volume, "guide": volume.flip(3)}, ["hr", "guide"])
    loader = SliceLoader(volumes, 12, 0, [0, 30], BATCH, 0, "cpu")
    networks = {"rdn": GuidedRDN(True, 3, 2, 2), "concatenate": Concatenate()}
    graph = TensorGraph(networks, {"image": ["concatenate", "hr", "guide"], "sr": ["rdn", "image"]}, ["hr", "guide"])
    player = Player(
        ["rdn"], lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-3), {"l1": [1.0, nn.L1Loss(), "sr", "guide"]}
    )
    trainer = AlternatingTrainer(torch.device("cpu"), 1, loader, graph, {"rdn": player}, epoch_length=4)
    losses = []
    trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: losses.append(engine.state.output["rdn/total"]))
    trainer.run()
    return losses, graph.state_dict()


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    network = network_of()
    synchronise_batch_norm(network)
    half = BATCH // 2
    found = passes(network, rank * half, (rank + 1) * half)
    for gradient in found["gradients"].values():
        dist.all_reduce(gradient)
    torch.save({"passes": found, "training": training()}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(work, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_outputs_gradients_and_statistics_are_those_of_the_whole_batch(two):
    whole = passes(network_of(), 0, BATCH)
    halves = [result["passes"] for result in two]
    for i in range(2):
        joined = torch.cat([half["outputs"][i] for half in halves])
        torch.testing.assert_close(joined, whole["outputs"][i], atol=1e-5, rtol=1e-4)
    for name in ("input gradient", "evaluated"):
        joined = torch.cat([half[name] for half in halves])
        torch.testing.assert_close(joined, whole[name], atol=1e-4 * whole[name].abs().max().item(), rtol=1e-4)
    for half in halves:
        for kind in ("gradients", "state"):
            assert half[kind].keys() == whole[kind].keys()
            for name, value in whole[kind].items():
                # In front of a batch norm the gradient of a bias is 0 up to rounding.
                atol = 1e-2 if name in ("0.bias", "3.bias") and kind == "gradients" else 1e-5
                torch.testing.assert_close(half[kind][name], value, atol=atol, rtol=1e-3, msg=name)
    alone = passes(network_of(), 0, BATCH // 2)
    assert not torch.allclose(alone["outputs"][0], whole["outputs"][0][: BATCH // 2], atol=0.1)


def test_a_training_by_two_processes_is_that_of_one(two):
    losses, state = training()
    assert losses[-1] != pytest.approx(losses[0], rel=1e-2)
    for result in two:
        own_losses, own = result["training"]
        assert own_losses == pytest.approx(losses, abs=1e-5) and own.keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(own[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_processes_that_are_not_joined_are_refused():
    with pytest.raises(RuntimeError, match="not initialised"):
        synchronise_batch_norm(network_of())
