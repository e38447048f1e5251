"""A training iteration against a plain loop: ``python -m tests.benchmarks.training``.

The plain loop is :func:`~tests.benchmarks.common_parts.plain_iteration`, in float32 and torch's default memory format.
Same networks, losses and batch: the paper's form at the paper's sizes.
"""

import torch

from common.networks.slab import channels_to_slab, slab_to_channels

from .common_parts import command, in_own_process, measured, parser, plain_iteration, show, title


def measure(overlays: tuple, override: dict, repeats: int, plain: bool) -> tuple[float, float]:
    """Seconds an iteration, and peak GiB; the plain loop's networks and slabs are in torch's default format."""
    torch.manual_seed(0)
    content = parser(*overlays, **override).get_parsed_content
    trainer, size, scale = map(content, ("train#trainer", "lr_patch", "scale"))
    count, margin, device = content("batch_size"), content("margin"), trainer.state.device
    hr = [n * s for n, s in zip(size, scale, strict=True)]
    shapes = {"lr": size, "hr": hr, "hr_context": [n + 2 * margin for n in hr]}
    slabs = {key: torch.rand(count, 1, *shape, device=device) for key, shape in shapes.items()}
    if plain:
        trainer.graph.to(memory_format=torch.contiguous_format)
        slabs = {key: channels_to_slab(slab_to_channels(slab).contiguous()) for key, slab in slabs.items()}
    noise = {key: torch.randn(count, 2, *size, device=device) for key in ("noise", "training_noise")}
    unturned = torch.arange(3, device=device).expand(count, 3)
    data = {**slabs, **noise, "turn": unturned, "lr_turn": unturned}
    return measured(plain_iteration(trainer, data) if plain else lambda: trainer._iteration(trainer, data), repeats)


def main(overlay: str = "paper", batch_size: int = 8, repeats: int = 3, amp: bool = False) -> None:
    """Print seconds an iteration, the ratio, and peak memory.

    Args:
        overlay: "paper" for the paper's form, "" for the default form.
        batch_size: slabs a batch.
        repeats: iterations of which the median is taken.
        amp: whether our iteration runs under autocast (bfloat16); the plain loop never does.
    """
    overlays = (overlay,) if overlay else ()
    base = in_own_process(measure, overlays, {"batch_size": batch_size, "amp": False}, repeats, True)
    own = in_own_process(measure, overlays, {"batch_size": batch_size, "amp": amp}, repeats, False)
    title(f"training, batch of {batch_size}, {overlay or 'default'} form")
    show("plain loop, float32", *base)
    show(f"AlternatingTrainer{', bf16' if amp else ''}", *own, own[0] / base[0])


if __name__ == "__main__":
    command(main)
