"""An iteration of the CT-guided bundle's stage 3 against plain loops: ``python -m tests.benchmarks.joint_training``.

A plain loop computes the forward pass for each player anew, see :func:`~tests.benchmarks.common_parts.plain_iteration`.
The narrow loop computes for each player only what its losses read. Same networks,
losses and batch, in float32.
"""

from __future__ import annotations

import fire
import torch

from common.memory import keep_freed_memory

from .common_parts import device_name, in_own_process, parser, peak_gib, plain_iteration, seconds


def trainer_and_batch(overlays: tuple, override: dict) -> tuple:
    """The trainer of stage 3, and random images of the config's sizes."""
    torch.manual_seed(0)
    stage_3 = {"stage": 3, "start": "@network_def", "lambda_3": 0.0, "amp": False}
    config = parser(*overlays, bundle="ct_guided", **{**stage_3, **override})
    trainer = config.get_parsed_content("train#trainer")
    (p, w), factor = (config.get_parsed_content(key) for key in ("lr_patch", "factor"))
    batch, codes = (config.get_parsed_content(key) for key in ("batch_size", "attributes"))
    hr = (1, p, factor * w)
    shapes = {"hr": hr, "hr_recoloured": hr, "lr": (1, p, w), "gains": (1, 1, w)}
    shapes |= {"prior_ct": (codes,), "prior_mr": (codes,)}
    device = trainer.state.device
    return trainer, {key: torch.rand(batch, *shape, device=device) for key, shape in shapes.items()}


def ours(overlays: tuple, override: dict, repeats: int) -> tuple[float, float]:
    """Seconds an iteration of the AlternatingTrainer, and peak GiB."""
    trainer, batch = trainer_and_batch(overlays, override)
    keep_freed_memory()  # as the trainer's run does on a CPU
    return seconds(lambda: trainer._iteration(trainer, batch), repeats), peak_gib()


def plain(overlays: tuple, override: dict, repeats: int, narrow: bool) -> tuple[float, float]:
    """The same of a plain loop."""
    trainer, batch = trainer_and_batch(overlays, override)
    return seconds(plain_iteration(trainer, batch, narrow), repeats), peak_gib()


def main(overlay: str = "", repeats: int = 3, **override) -> None:
    """Print seconds an iteration, iterations a second, the ratios, and peak memory.

    Args:
        overlay: "paper" for the paper's form, "" for the default form.
        repeats: iterations of which the median is taken.
        override: keys of the config, for example --batch_size 4.
    """
    overlays = (overlay,) if overlay else ()
    sizes = override or "sizes of train.json"
    print(f"stage 3, {overlay or 'default'} form, {sizes}, {device_name()}, torch {torch.__version__}")
    own, memory = in_own_process(ours, overlays, override, repeats)
    print(f"AlternatingTrainer {own:8.3f} s  {1 / own:6.3f} it/s  {memory:6.2f} GiB")
    for name, narrow in (("plain loop", False), ("narrow loop", True)):
        base, memory = in_own_process(plain, overlays, override, repeats, narrow)
        print(f"{name:18} {base:8.3f} s  {1 / base:6.3f} it/s  {memory:6.2f} GiB  ratio {own / base:.3f}")


if __name__ == "__main__":
    fire.Fire(main)
