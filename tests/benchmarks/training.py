"""A training iteration against a plain loop: ``python -m tests.benchmarks.training``.

The plain loop is what MONAI's GanTrainer does, in float32 and torch's default memory format: the generator's step, then
a second forward pass of the whole generator for the discriminators. Same networks, losses and batch: the paper's form
at the paper's sizes.
"""

from __future__ import annotations

import fire
import torch

from common.networks.slab import channels_to_slab, slab_to_channels

from .common_parts import device_name, in_own_process, parser, peak_gib, seconds


def batch(config, device: torch.device, default_format: bool) -> dict[str, torch.Tensor]:
    """Random slabs of the config's sizes; on request so that their slices are channels in torch's default format."""
    size, scale = config.get_parsed_content("lr_patch"), config.get_parsed_content("scale")
    count, margin = config.get_parsed_content("batch_size"), config.get_parsed_content("margin")
    hr = [n * s for n, s in zip(size, scale, strict=True)]
    shapes = {"lr": size, "hr": hr, "hr_context": [n + 2 * margin for n in hr]}
    slabs = {key: torch.rand(count, 1, *shape, device=device) for key, shape in shapes.items()}
    noise = torch.randn(count, 2, *size, device=device)
    if default_format:
        slabs = {key: channels_to_slab(slab_to_channels(slab).contiguous()) for key, slab in slabs.items()}
    return {**slabs, "noise": noise}


def ours(overlays: tuple, override: dict, repeats: int) -> tuple[float, float]:
    """Seconds an iteration of the AlternatingTrainer, and peak GiB."""
    torch.manual_seed(0)
    config = parser(*overlays, **override)
    trainer = config.get_parsed_content("train#trainer")
    data = batch(config, trainer.state.device, default_format=False)
    return seconds(lambda: trainer._iteration(trainer, data), repeats), peak_gib()


def plain(overlays: tuple, override: dict, repeats: int) -> tuple[float, float]:
    """The same of the plain loop."""
    torch.manual_seed(0)
    config = parser(*overlays, **override)
    device = config.get_parsed_content("device")
    graph = config.get_parsed_content("graph").to(device)
    players = {name: p for name, p in config.get_parsed_content("players").items() if p is not None}
    for name, player in players.items():
        player.join(name, graph, device, fp16=False)
    data = batch(config, device, default_format=True)
    generators = {n for name, p in players.items() if name != "discriminator" for n in p.networks}
    images = [step for step, (network, _) in graph.steps.items() if network in generators]

    def iteration() -> None:
        for name, player in players.items():
            inputs = {tensor for row in player.losses.inputs().values() for tensor in row}
            if name == "discriminator":
                # As in GanTrainer, whose generator is one network: all of it is computed again.
                fakes = graph(data, images)
                values = {**data, **{n: fakes[n].detach() for n in images}}
                for verdict in inputs:
                    values[verdict] = graph.compute(verdict, values)
            else:
                values = graph(data, inputs)
            total, _ = player.losses(values)
            player.optimizer.zero_grad()
            total.backward()
            player.optimizer.step()

    return seconds(iteration, repeats), peak_gib()


def main(overlay: str = "paper", batch_size: int = 8, repeats: int = 3, amp: bool = False) -> None:
    """Print seconds an iteration, the ratio, and peak memory.

    Args:
        overlay: "paper" for the paper's form, "" for the default form.
        batch_size: slabs a batch.
        repeats: iterations of which the median is taken.
        amp: whether our iteration runs under autocast (bfloat16); the plain loop never does.
    """
    overlays = (overlay,) if overlay else ()
    base, base_memory = in_own_process(plain, overlays, {"batch_size": batch_size, "amp": False}, repeats)
    own, own_memory = in_own_process(ours, overlays, {"batch_size": batch_size, "amp": amp}, repeats)
    print(f"training, batch of {batch_size}, {overlay or 'default'} form, {device_name()}, torch {torch.__version__}")
    print(f"plain loop, float32     {base:8.3f} s  {base_memory:6.2f} GiB")
    print(f"AlternatingTrainer{', bf16' if amp else '':6}{own:8.3f} s  {own_memory:6.2f} GiB  ratio {own / base:.3f}")


if __name__ == "__main__":
    fire.Fire(main)
