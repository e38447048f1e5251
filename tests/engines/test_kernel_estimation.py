"""Many kernels are estimated at once as each would be alone, and what is estimated is the kernel that was there."""

import numpy as np
import pytest
import torch
from monai.utils import set_determinism
from torch import nn

from common.blur_kernels import bicubic_kernel, describe_kernel, gaussian_kernel, kernel_error
from common.data import VolumeCache
from common.degradations import InPlaneKernel
from common.engines import AlternatingTrainer, Player
from common.graph import TensorGraph
from common.losses import (
    AdaptationLoss,
    BoundaryLoss,
    CentreLoss,
    DownscaleLoss,
    KernelSchedule,
    SparsityLoss,
    SumToOneLoss,
)
from common.networks import FixedKernel, GradientReversal, KernelDiscriminator, KernelGenerator, KernelSampling
from tests.benchmarks.common_parts import parser
from tests.bundles.runs import phantom

KERNELS, ITERATIONS = 3, 8
SIZES = (5, 3, 1)  # kernels of 7x7
STEPS = {
    "kernel": ["generator"],
    "lr_fake": ["sampling", "hr", "kernel"],
    "kernel_bicubic": ["bicubic"],
    "lr_bicubic": ["sampling", "hr", "kernel_bicubic"],
    "lr_verdict": ["discriminator", "lr"],
    "lr_fake_reversed": ["reversal", "lr_fake"],
    "lr_fake_verdict": ["discriminator", "lr_fake_reversed"],
}


def networks_of(kernels):
    return {
        "generator": KernelGenerator(kernels, 4, SIZES, gain=1.0, memory=5),
        "sampling": KernelSampling(2),
        "bicubic": FixedKernel(bicubic_kernel(2, 7), kernels),
        "reversal": GradientReversal(),
        "discriminator": KernelDiscriminator(kernels, 4, 2, 3),
    }


def trainer_of(networks, batches, kernels):
    """The bundle's game, with its optimizer; kernels whose images are dark are ahead in the schedule."""
    first = {"bicubic": 5.0, "sum_to_one": 0.5, "boundaries": 0.5, "centre": 0.0, "sparse": 0.0}
    schedule = KernelSchedule(kernels, first, {"centre": 1.0, "sparse": 5.0}, threshold=0.25, interval=2)
    rows = [
        ("real", 1.0, AdaptationLoss(1.0), "lr_verdict"),
        ("fake", 1.0, AdaptationLoss(0.0), "lr_fake_verdict"),
        ("bicubic", schedule["bicubic"], DownscaleLoss(), "lr_fake", "lr_bicubic"),
        ("sum_to_one", schedule["sum_to_one"], SumToOneLoss(), "kernel"),
        ("boundaries", schedule["boundaries"], BoundaryLoss(7), "kernel"),
        ("sparse", schedule["sparse"], SparsityLoss(), "kernel"),
        ("centre", schedule["centre"], CentreLoss(7, 0.0), "kernel"),
    ]
    rows = {name: row for name, *row in rows}

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=0.01, betas=(0.5, 0.999), eps=1e-3 / kernels)

    player = Player(["generator", "discriminator"], adam, rows, schedule=schedule)
    graph = TensorGraph(networks, STEPS)
    trainer = AlternatingTrainer(
        torch.device("cpu"), 1, batches, graph, {"downsampling": player}, epoch_length=len(batches)
    )
    return trainer, schedule


def copy_share(whole, share, j):
    """Give the networks of one kernel what those of many hold for kernel j."""
    generator, discriminator = whole["generator"], whole["discriminator"]
    with torch.no_grad():
        for one, all_of_them in zip(share["generator"].layers, generator.layers, strict=True):
            one.copy_(all_of_them[j : j + 1])
        share["generator"].average.copy_(generator.average[j : j + 1])
        for name, value in share["discriminator"].state_dict(keep_vars=True).items():
            stack = discriminator.state_dict()[name]
            # Kernels are innermost in what several layers share.
            outer, count = (stack.shape[1], value.shape[1]) if name.startswith("norm") else (len(stack), len(value))
            parts = stack.reshape(*stack.shape[: name.startswith("norm")], -1, KERNELS, *_rest(stack, name, outer))
            chosen = parts.select(1 + name.startswith("norm"), j)
            assert count * KERNELS == outer
            value.copy_(chosen.reshape(value.shape))


def _rest(stack, name, outer):
    if name.startswith("norm"):
        return (outer // KERNELS,)
    return stack.shape[1:]


def test_a_batch_of_kernels_trains_each_as_it_would_alone():
    torch.manual_seed(0)
    batches = []
    for _ in range(ITERATIONS):
        scale = torch.tensor([0.1, 3.0, 1.0])[:, None, None, None]
        batches.append({"hr": scale * torch.rand(KERNELS, 2, 21, 21), "lr": torch.rand(KERNELS, 2, 8, 8)})
    whole = networks_of(KERNELS)
    shares = [networks_of(1) for _ in range(KERNELS)]
    for j, share in enumerate(shares):
        copy_share(whole, share, j)
    start = whole["generator"].eval()().detach()
    trainer, schedule = trainer_of(whole, batches, KERNELS)
    trainer.run()
    kernels, stages = whole["generator"].eval()().detach(), schedule.weights["sparse"].tolist()
    assert len(set(stages)) == 2, "kernels must be at different stages"
    for j, share in enumerate(shares):
        alone, its_schedule = trainer_of(share, [{k: v[j : j + 1] for k, v in b.items()} for b in batches], 1)
        alone.run()
        assert {name: weight[j].item() for name, weight in schedule.weights.items()} == {
            name: weight.item() for name, weight in its_schedule.weights.items()
        }
        moved = (kernels[j] - start[j]).norm()
        assert moved > 0.05 * start[j].norm()
        assert (share["generator"].eval()()[0].detach() - kernels[j]).norm() < 1e-3 * moved
        torch.testing.assert_close(share["generator"].average[0], whole["generator"].average[j], rtol=1e-3, atol=1e-5)
    # Terms are logged by name as means over the kernels.
    assert isinstance(trainer.state.output["downsampling/sparse"], float)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2, 1))

    def forward(self, x):
        return self.scale * x


def test_the_schedule_is_stepped_once_an_iteration_and_kept_with_the_player():
    def player_of():
        schedule = KernelSchedule(2, {"bicubic": 1.0}, {}, threshold=0.5, interval=3, decay=0.1)
        rows = {"bicubic": [schedule["bicubic"], lambda x: x.abs().mean(1), "sr"]}
        return Player(["up"], lambda p: torch.optim.SGD(p, lr=0.0), rows, steps=2, schedule=schedule)

    batch = {"hr": torch.tensor([[0.4, 0.2], [0.6, 0.8]])}
    player = player_of()
    graph = TensorGraph({"up": Scale()}, {"sr": ["up", "hr"]}, ["hr"])
    trainer = AlternatingTrainer(torch.device("cpu"), 1, [batch] * 5, graph, {"p": player}, epoch_length=5)
    trainer.run()
    assert player.schedule.iteration == 5 and player.schedule.weights["bicubic"].tolist() == pytest.approx([0.1, 1.0])
    assert trainer.state.output == pytest.approx({"p/bicubic": 0.5, "p/total": (0.1 * 0.3 + 0.7) / 2})
    other = player_of()
    other.join("p", graph, torch.device("cpu"), False)
    other.load_state_dict(player.state_dict())
    assert other.schedule.iteration == 5 and other.schedule.weights["bicubic"].tolist() == pytest.approx([0.1, 1.0])


@pytest.mark.slow
def test_a_known_kernel_is_recovered():
    """By the bundle's own networks, losses and loader, in 1200 iterations: a scan, and the same scan degraded.

    Within 0.5 pixels of its widths, 8 degrees of its angle and 0.25 pixels of its centre, and with less than three
    quarters of the error of the paper's Gaussian, 0.34. (Two seeds: 0.1 and 0.19; widths to 0.2, 3 degrees, 0.07.)
    """
    truth = gaussian_kernel((2.0, 1.0), angle=30)
    hr = phantom(0, (128, 144, 12))[..., 4:8]
    hr = torch.from_numpy(hr / np.quantile(hr, 0.999)).float()[None]
    volumes = {"hr": hr, "lr": InPlaneKernel(truth, 2)(hr)}
    caches = {
        key: VolumeCache([{key: f"{key}.nii", "subject": "one"}], lambda e, k=key: {k: volumes[k]}, [key])
        for key in volumes
    }
    config = parser(
        bundle="downsampling_gan",
        device=torch.device("cpu"),
        kernel_per="volume",
        kernel_epochs=1,
        kernel_epoch_length=1200,
        crops=4,
        **{"estimation#source": caches["hr"], "estimation#target": caches["lr"], "estimation#handlers": []},
    )
    set_determinism(0)
    config.get_parsed_content("estimation#trainer").run()
    set_determinism(None)
    schedule = config.get_parsed_content("schedule")
    assert schedule.iteration == 1200 and schedule.weights["sparse"].item() == 5
    (kernel,) = config.get_parsed_content("generator").average
    found, true = describe_kernel(kernel), describe_kernel(truth)
    assert found["fwhm"] == pytest.approx(true["fwhm"], abs=0.5)
    assert found["angle"] == pytest.approx(30, abs=8) and found["centre"] == pytest.approx([0, 0], abs=0.25)
    assert kernel_error(kernel, truth) < 0.25 < 0.33 < kernel_error(gaussian_kernel(1.5), truth)
