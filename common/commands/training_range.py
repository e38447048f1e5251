"""``python -m common training-range``: print the statistics of the LR volumes that a training saw."""

from __future__ import annotations

import json
from pathlib import Path

from monai.bundle import ConfigParser
from monai.utils import set_determinism

from ..data import Group, VolumeCache
from ..io.naming import find_root_cause
from ..override_checks import find_unread
from ..transforms import compute_scan_statistics, widen_range
from ..weights import read_overlay, write_overlay


def measure_training_range(
    config_file: str | list[str],
    group: str,
    transform: str = "validate#preprocessing",
    checkpoint: str | None = None,
    finer: float = 1.0,
    **override,
) -> None:
    """Print the range of the statistics of a training's LR volumes, as JSON, for ``measure_training_range`` of
    inference.json.

    The volumes are loaded, and if the training does so degraded, with the training's configs, overlays and overrides.
    Inference then warns about scans outside of the range. The printed JSON can be saved as an overlay of
    inference.json. With a ``checkpoint``, the overlay of these weights gets the range.

    Args:
        config_file: the configs of the training, one or a list, for example bundles/udean/configs/train.json.
        group: group of the datalist that the training learns from: source or target.
        transform: key of the configs' transform that reads an entry, and gives "lr".
        checkpoint: the training's weights, whose overlay the range is written to.
        finer: factor by which training made pixels finer in plane than the volumes', as ``zoom`` of ct_guided.
        override: keys of the configs to set, as for the training: --dataset_dir D.

    Raises:
        FileNotFoundError: when there is no such config, or no overlay of the weights.
        ValueError: when ``finer`` is less than 1, a key is unknown, the configs cannot be evaluated, or a volume cannot
            be prepared; every such file is listed with the reason.
    """
    if not isinstance(finer, (int, float)) or not finer >= 1:
        raise ValueError(f"--finer {finer}: expected a number of at least 1.")
    parser = ConfigParser()
    parser.read_config(config_file)
    problems = [problem for key in ("datalist", transform, *override) if (problem := find_unread(parser.get(), key))]
    if problems:
        raise ValueError("\n".join(f"{config_file}: {problem}" for problem in problems))
    parser.update(override)
    overlay = None
    if checkpoint is not None and (overlay := read_overlay(checkpoint)) is None:
        raise FileNotFoundError(
            f"{checkpoint}: there is no {Path(checkpoint).stem}.json in its folder to write into; leave --checkpoint "
            "out, and lay what is printed over inference.json."
        )
    # Degradations may be drawn at random.
    set_determinism(0)
    try:
        entries = Group(parser.get_parsed_content("datalist"), group, ("hr", "lr", "guide"))
        volumes = VolumeCache(entries.entries, parser.get_parsed_content(transform), ["lr"])
    except Exception as error:
        raise ValueError(f"{config_file}: {find_root_cause(error)}") from error
    training_range = widen_range(
        compute_scan_statistics(item["lr"], affines["lr"])
        for item, affines in zip(volumes.items, volumes.affines, strict=True)
    )
    training_range["in_plane_spacing"][0] = float(f"{training_range['in_plane_spacing'][0] / finer:.3g}")
    if checkpoint is not None and overlay is not None:
        write_overlay(checkpoint, {**overlay, "training_range": training_range})
    lines = ",\n".join(f'        "{name}": {json.dumps(pair)}' for name, pair in training_range.items())
    print(f'{{\n    "training_range": {{\n{lines}\n    }}\n}}')
