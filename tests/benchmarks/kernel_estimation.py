"""Batched estimation of kernels against the direct way: ``python -m tests.benchmarks.kernel_estimation``.

The direct way is the paper's, one slice at a time: the generator's layers are applied one after the other, the delta
response is computed with them too, the discriminator reads a triplet of maps, torch's spectral norm and batch norm are
used, and generator and discriminator take turns. Against it is the bundle's trainer, its loader and losses included,
for some numbers of slices. Images are random: they do not change the time.
"""

from __future__ import annotations

import fire
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.flop_counter import FlopCounterMode

from common.blur_kernels import bicubic_kernel
from common.data import VolumeCache
from common.losses import BoundaryLoss, CentreLoss, SparsityLoss
from common.memory import keep_freed_memory
from common.networks.kernel_gan import SOBEL_X

from .common_parts import device_name, in_own_process, parser, seconds


class Direct:
    """One slice's generator and discriminator, trained as the paper describes it."""

    def __init__(self, device: torch.device) -> None:
        sizes, widths = (7, 5, 3, 1, 1, 1), (1, 64, 64, 64, 64, 64, 1)
        self.generator = nn.Sequential(
            *(
                nn.Conv2d(i, o, k, stride=2 if n == 5 else 1, bias=False)
                for n, (i, o, k) in enumerate(zip(widths, widths[1:], sizes, strict=False))
            )
        ).to(device)
        layers: list[nn.Module] = []
        for i, k in ((3, 7), *((64, 1),) * 5):
            layers += [spectral_norm(nn.Conv2d(i, 64, k)), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        self.discriminator = nn.Sequential(*layers, spectral_norm(nn.Conv2d(64, 1, 1)), nn.Sigmoid()).to(device)
        self.optimizers = [
            torch.optim.Adam(n.parameters(), 2e-4, betas=(0.5, 0.999)) for n in (self.generator, self.discriminator)
        ]
        sobel = torch.tensor(SOBEL_X, device=device)
        self.sobel = torch.stack([sobel, sobel.T])[:, None]
        self.bicubic = bicubic_kernel(2).to(device)[None, None]
        self.terms = [(BoundaryLoss(13), 0.5), (SparsityLoss(), 5.0), (CentreLoss(13, 0.0), 1.0)]

    def triplet(self, lr: torch.Tensor) -> torch.Tensor:
        return torch.cat([lr[..., 1:-1, 1:-1], F.conv2d(lr, self.sobel)], dim=1)

    def kernel(self) -> torch.Tensor:
        x = F.pad(torch.ones(1, 1, 1, 1, device=self.bicubic.device), (12,) * 4)
        for layer in self.generator:
            x = F.conv2d(x, layer.weight)
        return x[0].flip(1, 2)

    def step(self, hr: torch.Tensor, lr: torch.Tensor) -> None:
        fake, kernel = self.generator(hr), self.kernel()
        loss = (self.discriminator(self.triplet(fake)) - 1).abs().mean()
        loss = loss + 5 * (fake - F.conv2d(hr, self.bicubic, stride=2)).abs().mean()
        loss = loss + 0.5 * (1 - kernel.sum()).abs() + sum(weight * term(kernel).mean() for term, weight in self.terms)
        self.optimizers[0].zero_grad()
        loss.backward()
        self.optimizers[0].step()
        loss = (self.discriminator(self.triplet(lr)) - 1).abs().mean()
        loss = loss + self.discriminator(self.triplet(fake.detach())).abs().mean()
        self.optimizers[1].zero_grad()
        loss.backward()
        self.optimizers[1].step()


def measure(kernels: int, iterations: int) -> tuple[float, float, float]:
    """Seconds an iteration, its floating point operations, and those that the machine does in a second; 0 is direct."""
    torch.manual_seed(0)
    volumes = {
        key: VolumeCache(
            [{key: n}], lambda entry: {k: torch.rand(1, n, n, max(kernels, 1)) for k, n in entry.items()}, [key]
        )
        for key, n in (("hr", 256), ("lr", 128))
    }
    override = {"estimation#source": volumes["hr"], "estimation#target": volumes["lr"], "estimation#handlers": []}
    config = parser(bundle="downsampling_gan", **override, kernel_epochs=1, kernel_epoch_length=1)
    device = config.get_parsed_content("device")
    batches = iter(config.get_parsed_content("estimation#dataloader"))
    if device.type == "cpu":
        keep_freed_memory()
    if kernels == 0:
        direct = Direct(device)

        def step() -> None:
            batch = next(batches)
            direct.step(batch["hr"], batch["lr"])
    else:
        trainer = config.get_parsed_content("estimation#trainer")

        def step() -> None:
            trainer._iteration(trainer, next(batches))

    taken = seconds(step, iterations)
    with FlopCounterMode(display=False) as counter:
        step()
    n = 4096 if device.type == "cpu" else 16384
    a = torch.rand(n, n, device=device)
    return taken, counter.get_total_flops(), 2 * n**3 / seconds(lambda: a @ a, 3)


def main(kernels: tuple = (1, 16, 64), iterations: int = 20, training: int = 3000) -> None:
    """Print kernels a second and ratios.

    Args:
        kernels: numbers of slices at once.
        iterations: that are measured; the median counts.
        training: iterations that an estimation takes.
    """
    base, _, _ = in_own_process(measure, 0, iterations)
    print(f"kernels of {training} iterations, {device_name()}, torch {torch.__version__}")
    print(f"{'direct':>10}{base * 1e3:10.2f} ms a kernel and iteration{1 / (base * training):10.4f} kernels/s")
    for number in (kernels,) if isinstance(kernels, int) else kernels:
        taken, operations, rate = in_own_process(measure, number, iterations)
        print(
            f"{number:>10}{taken / number * 1e3:10.2f} ms a kernel and iteration{number / (taken * training):10.4f} "
            f"kernels/s  ratio {base * number / taken:6.1f}  {operations / number / 1e6:.0f} MFLOP each: "
            f"{taken * rate / operations:.1f} times the time of a large matrix product (float32, "
            f"{rate / 1e9:.0f} GFLOP/s)"
        )


if __name__ == "__main__":
    fire.Fire(main)
