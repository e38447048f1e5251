"""Many kernels are estimated at once as each would be alone, and what is estimated is the kernel that was there."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.utils import set_determinism
from torch import nn

from common import losses
from common.data import KernelCropLoader, VolumeCache, select_kernel_cases
from common.degradations import InPlaneKernel
from common.engines import AlternatingTrainer, KernelEstimation, Player, RunFolder
from common.graph import TensorGraph
from common.networks import FixedKernel, GradientReversal, KernelDiscriminator, KernelGenerator, KernelSampling
from common.physics.blur_kernels import compute_kernel_error, describe_kernel, make_bicubic_kernel, make_gaussian_kernel
from tests.bundles.runs import content, phantom

KERNELS = 3
STEPS = {"kernel": ["generator"], "lr_fake": ["sampling", "hr", "kernel"], "kernel_bicubic": ["bicubic"]}
STEPS |= {"lr_bicubic": ["sampling", "hr", "kernel_bicubic"], "lr_verdict": ["discriminator", "lr"]}
STEPS |= {"lr_fake_reversed": ["reversal", "lr_fake"], "lr_fake_verdict": ["discriminator", "lr_fake_reversed"]}


def networks_of(kernels):
    generator = KernelGenerator(kernels, 4, (5, 3, 1))  # of kernels of 7x7
    generator.memory = 5
    for layer in generator.layers:
        layer.data *= 10
    networks = {"generator": generator, "discriminator": KernelDiscriminator(kernels, 4, 2, 3)}
    networks |= {"sampling": KernelSampling(2), "bicubic": FixedKernel(make_bicubic_kernel(2, 7))}
    return networks | {"reversal": GradientReversal()}


def trainer_of(networks, batches, kernels):
    """The bundle's game, with its optimizer; kernels whose images are dark are ahead in the schedule."""
    first = {"bicubic": 5.0, "sum_to_one": 0.5, "boundaries": 0.5, "centre": 0.0, "sparse": 0.0}
    schedule = losses.KernelSchedule(kernels, first, {"centre": 1.0, "sparse": 5.0}, threshold=0.25, interval=2)
    rows = {"real": [1.0, nn.L1Loss(), "lr_verdict", 1]}
    rows |= {"fake": [1.0, nn.L1Loss(), "lr_fake_verdict", 0]}
    rows |= {"bicubic": ["bicubic", losses.DownscaleLoss(), "lr_fake", "lr_bicubic"]}
    terms = {"sum_to_one": losses.SumToOneLoss(), "boundaries": losses.BoundaryLoss(7)}
    terms |= {"sparse": losses.SparsityLoss(), "centre": losses.CentreLoss(7, 0.0)}
    rows |= {name: [name, loss, "kernel"] for name, loss in terms.items()}
    adam = partial(torch.optim.Adam, lr=0.01, betas=(0.5, 0.999), eps=1e-3 / kernels)
    player = Player(["generator", "discriminator"], adam, rows, schedule=schedule)
    graph, players = TensorGraph(networks, STEPS), {"downsampling": player}
    return AlternatingTrainer(1, batches, graph, players, len(batches), torch.device("cpu")), schedule


@torch.no_grad()
def copy_share(whole, share, j):
    """Give the networks of one kernel what those of many hold for kernel j."""
    for one, all_of_them in zip(share["generator"].layers, whole["generator"].layers, strict=True):
        one.copy_(all_of_them[j : j + 1])
    share["generator"].average.copy_(whole["generator"].average[j : j + 1])
    for name, value in share["discriminator"].state_dict(keep_vars=True).items():
        stack = whole["discriminator"].state_dict()[name]
        # Kernels are innermost in what several layers share, but for the channels of batch norm.
        part = stack.chunk(KERNELS, dim=1)[j] if name.startswith("norm") else stack[j::KERNELS]
        assert part.shape == value.shape
        value.copy_(part)


def test_a_batch_of_kernels_trains_each_as_it_would_alone():
    torch.manual_seed(0)
    scale = torch.tensor([0.1, 3.0, 1.0])[:, None, None, None]
    batches = [{"hr": scale * torch.rand(KERNELS, 2, 21, 21), "lr": torch.rand(KERNELS, 2, 8, 8)} for _ in range(8)]
    whole, shares = networks_of(KERNELS), [networks_of(1) for _ in range(KERNELS)]
    for j, share in enumerate(shares):
        copy_share(whole, share, j)
    start = whole["generator"].eval()().detach()
    trainer, schedule = trainer_of(whole, batches, KERNELS)
    trainer.run()
    kernels = whole["generator"].eval()().detach()
    assert len(set(schedule.weights["sparse"].tolist())) == 2, "kernels must be at different stages"
    for j, share in enumerate(shares):
        alone, own = trainer_of(share, [{k: v[j : j + 1] for k, v in b.items()} for b in batches], 1)
        alone.run()
        assert {k: v[j].item() for k, v in schedule.weights.items()} == {k: v.item() for k, v in own.weights.items()}
        moved = (kernels[j] - start[j]).norm()
        assert moved > 0.05 * start[j].norm()
        assert (share["generator"].eval()()[0].detach() - kernels[j]).norm() < 1e-3 * moved
        torch.testing.assert_close(share["generator"].average[0], whole["generator"].average[j], rtol=1e-3, atol=1e-5)
    # Terms are logged by name as means over the kernels.
    assert isinstance(trainer.state.output[0]["downsampling/sparse"], float)


def test_the_schedule_is_stepped_once_an_iteration_and_kept_with_the_player():
    def player_of():
        schedule = losses.KernelSchedule(2, {"bicubic": 1.0}, {}, threshold=0.5, interval=3, decay=0.1)
        rows = {"bicubic": ["bicubic", lambda x: x.abs().mean(1), "sr"]}
        return Player(["up"], partial(torch.optim.SGD, lr=0.0), rows, steps=2, schedule=schedule)

    batch, player, other = {"hr": torch.tensor([[0.4, 0.2], [0.6, 0.8]])}, player_of(), player_of()
    graph = TensorGraph({"up": nn.PReLU(init=1.0)}, {"sr": ["up", "hr"]}, ["hr"])  # of what is positive, the same
    trainer = AlternatingTrainer(1, [batch] * 5, graph, {"p": player}, 5, torch.device("cpu"))
    trainer.run()
    total = (0.1 * 0.3 + 0.7) / 2
    logged = {"p/bicubic": 0.5, "p/total": total, "p/learning_rate": 0.0, "loss": total}
    assert trainer.state.output == [pytest.approx(logged)]
    other.join_graph("p", graph, torch.device("cpu"), False)
    other.load_state_dict(player.state_dict(), 0, 0)
    for schedule in (player.schedule, other.schedule):
        assert schedule.iteration == 5 and schedule.weights["bicubic"].tolist() == pytest.approx([0.1, 1.0])


def test_a_player_may_have_what_players_have_by_default(tmp_path):
    """Else the optimizer's eps is that of one kernel."""
    made_of = {"bare": {}, "adam": {"optimizer": partial(torch.optim.Adam, eps=1e-6)}}
    players = {
        name: partial(Player, losses={"mean": [1.0, torch.mean, "sr"]}, **options) for name, options in made_of.items()
    }
    blur = SimpleNamespace(device="cpu", seed=0, output_dir=tmp_path, kernel_dir=tmp_path / "kernels")
    graph = partial(TensorGraph, networks={"bare": nn.PReLU(), "adam": nn.PReLU()}, steps={"sr": ["bare", "hr"]})
    later = tmp_path / "training_state_next.pt"
    estimation = KernelEstimation(blur, graph, players, nn.PReLU(), RunFolder(tmp_path, tmp_path), invalidates=[later])
    graph, players = estimation.make_players(kernels=4)
    for name, eps in (("bare", 1e-8), ("adam", 2.5e-7)):
        players[name].join_graph(name, graph, torch.device("cpu"), False)
        assert players[name].optimizer.defaults["eps"] == eps
    assert estimation._list_dependent_files(1) == [later]


@pytest.mark.slow
def test_a_known_kernel_is_recovered(tmp_path):
    """By the bundle's game. (Two seeds: errors 0.1 and 0.19, the paper's Gaussian's 0.34; widths to 0.2, 3 degrees.)"""
    truth = make_gaussian_kernel((2.0, 1.0), angle=30)
    hr = phantom(0, (128, 144, 12))[..., 4:8]
    hr = torch.from_numpy(hr / np.quantile(hr, 0.999)).float()[None]
    volumes = {"hr": hr, "lr": InPlaneKernel(truth, 2)(hr)}
    caches = [VolumeCache([{k: f"{k}.nii", "subject": "one"}], lambda e, k=k: {k: volumes[k]}, [k]) for k in volumes]
    loader = KernelCropLoader(*caches, select_kernel_cases(*caches, "volume"), 64, 26, 4, seed=0, device="cpu")
    without_data = {"train#dataloader": "$[]", "train#handlers": [], "max_epochs": 1, "epoch_length": 1}
    places = {"device": torch.device("cpu"), "output_dir": str(tmp_path)}
    set_determinism(0)
    trainer = content("downsampling_gan", "train#trainer", "train", **without_data, **places)
    graph, players = trainer.make_trainer(1).made(kernels=1)
    AlternatingTrainer(1, loader, graph, players, 1200).run()
    set_determinism(None)
    schedule = players["downsampling"].schedule
    assert schedule.iteration == 1200 and schedule.weights["sparse"].item() == 5
    (kernel,) = graph.networks["generator"].average
    found, true = describe_kernel(kernel), describe_kernel(truth)
    assert found["fwhm"] == pytest.approx(true["fwhm"], abs=0.5)
    assert found["angle"] == pytest.approx(30, abs=8) and found["centre"] == pytest.approx([0, 0], abs=0.25)
    assert compute_kernel_error(kernel, truth) < 0.25 < 0.33 < compute_kernel_error(make_gaussian_kernel(1.5), truth)
