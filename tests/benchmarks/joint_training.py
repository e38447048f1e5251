"""An iteration of the CT-guided bundle's stage 3 against a plain loop: ``python -m tests.benchmarks.joint_training``.

The plain loop computes for each player in turn what its losses read, without gradients where its own networks have no
part; what two players read is computed twice. Same networks, losses and batch, in float32.
"""

from __future__ import annotations

import contextlib

import fire
import torch

from .common_parts import device_name, in_own_process, parser, peak_gib, seconds


def trainer_and_batch(overlays: tuple, override: dict) -> tuple:
    """The trainer of stage 3, and random images of the config's sizes."""
    torch.manual_seed(0)
    config = parser(*overlays, bundle="ct_guided", stage=3, start="@network_def", lambda_3=0.0, amp=False, **override)
    trainer = config.get_parsed_content("train#trainer")
    (p, w), factor = (config.get_parsed_content(key) for key in ("lr_patch", "scale"))
    batch, codes = (config.get_parsed_content(key) for key in ("batch_size", "attributes"))
    shapes = {"hr": (1, p, factor * w), "lr": (1, p, w), "prior_ct": (codes,), "prior_mr": (codes,)}
    device = trainer.state.device
    return trainer, {key: torch.rand(batch, *shape, device=device) for key, shape in shapes.items()}


def ours(overlays: tuple, override: dict, repeats: int) -> tuple[float, float]:
    """Seconds an iteration of the AlternatingTrainer, and peak GiB."""
    trainer, batch = trainer_and_batch(overlays, override)
    return seconds(lambda: trainer._iteration(trainer, batch), repeats), peak_gib()


def plain(overlays: tuple, override: dict, repeats: int) -> tuple[float, float]:
    """The same of the plain loop."""
    trainer, batch = trainer_and_batch(overlays, override)
    graph = trainer.graph

    def needed(player) -> list[str]:
        found = {name for inputs in player.losses.inputs().values() for name in inputs}
        for output in reversed(graph.steps):
            if output in found:
                found.update(graph.steps[output][1])
        return [output for output in graph.steps if output in found]

    steps = {name: needed(player) for name, player in trainer.players.items()}

    def iteration() -> None:
        for name, player in trainer.players.items():
            values = dict(batch)
            for output in steps[name]:
                with contextlib.nullcontext() if output in player.dependent else torch.no_grad():
                    values[output] = graph.compute(output, values)
            total, _ = player.losses(values)
            player.optimizer.zero_grad()
            total.backward(inputs=player.parameters)
            player.optimizer.step()

    return seconds(iteration, repeats), peak_gib()


def main(overlay: str = "", repeats: int = 3, **override) -> None:
    """Print seconds an iteration, iterations a second, the ratio, and peak memory.

    Args:
        overlay: "paper" for the paper's form, "" for the default form.
        repeats: iterations of which the median is taken.
        override: keys of the config, for example --batch_size 4.
    """
    overlays = (overlay,) if overlay else ()
    base, base_memory = in_own_process(plain, overlays, override, repeats)
    own, own_memory = in_own_process(ours, overlays, override, repeats)
    sizes = override or "sizes of train.json"
    print(f"stage 3, {overlay or 'default'} form, {sizes}, {device_name()}, torch {torch.__version__}")
    print(f"plain loop         {base:8.3f} s  {1 / base:6.3f} it/s  {base_memory:6.2f} GiB")
    print(f"AlternatingTrainer {own:8.3f} s  {1 / own:6.3f} it/s  {own_memory:6.2f} GiB  ratio {own / base:.3f}")


if __name__ == "__main__":
    fire.Fire(main)
