"""``python -m common training-range``: the statistics of the LR volumes that a training saw."""

from __future__ import annotations

import json
from pathlib import Path

from monai.bundle import ConfigParser
from monai.utils import set_determinism

from ..data import VolumeCache
from ..handlers.checkpoint import save_atomically
from ..io.files import load_state, read_about
from ..io.naming import root_cause
from ..transforms import scan_statistics, widened_range


def training_range(
    config_file: str | list[str],
    data: str,
    transform: str,
    checkpoint: str | None = None,
    finer: float = 1.0,
    **override,
) -> None:
    """Print the range of the statistics of a training's LR volumes, as JSON, for ``training_range`` of inference.json.

    The volumes are loaded, and where the training does so degraded, by the training's own configuration, with the
    overlays and overrides that it was given. Inference then warns of scans outside of the range. Redirected to a file,
    what is printed is an overlay of inference.json; with a ``checkpoint``, the weights themselves remember it.

    Args:
        config_file: the configs of the training, one or a list, for example bundles/udean/configs/train.json.
        data: key of the configs that holds the entries of the volumes, for example train::target_dataset::data; with
            "::", because what follows "#" is lost on the command line.
        transform: key of the transform that gives "lr" for each of them, for example
            train::target_dataset::transform.
        checkpoint: the training's weights, to write the range into.
        finer: by which factor pixels in plane were made finer in training than the volumes', as ``zoom`` of ct_guided.
        override: keys of the configs to set, as for the training: --dataset_dir D.

    Raises:
        FileNotFoundError: when there is no such config, or no such checkpoint.
        ValueError: when ``finer`` is less than 1, a key is unknown or holds something else, the configs cannot be
            evaluated, or a volume cannot be prepared; every such file is listed with the reason. Or when the checkpoint
            does not say what it is.
    """
    if not isinstance(finer, (int, float)) or not finer >= 1:
        raise ValueError(f"--finer {finer}: expected a number of at least 1.")
    parser = ConfigParser()
    parser.read_config(config_file)
    unknown = [key for key in (*override, data, transform) if key not in parser]
    if unknown:
        raise ValueError(f"{config_file} has no key {', '.join(unknown)}.")
    parser.update(override)
    about = None
    if checkpoint is not None:
        state, about = load_state(Path(checkpoint), "cpu"), read_about(checkpoint)
        if about is None:
            raise ValueError(f"{checkpoint}: the weights do not say what they are; give inference what is printed.")
    # Degradations may be drawn at random.
    set_determinism(0)
    try:
        entries, prepare = (parser.get_parsed_content(key) for key in (data, transform))
    except Exception as error:
        raise ValueError(f"{config_file}: {root_cause(error)}") from error
    if not isinstance(entries, list) or not callable(prepare):
        raise ValueError(
            f"{config_file}: --data {data} and --transform {transform} are a {type(entries).__name__} and a "
            f"{type(prepare).__name__}, expected the keys of a list of entries and of a transform. Write keys with ::, "
            "as train::target_dataset::data; what follows # is lost on the command line."
        )
    volumes = VolumeCache(entries, prepare, ["lr"])
    found = widened_range(
        scan_statistics(item["lr"], affines["lr"]) for item, affines in zip(volumes.items, volumes.affines, strict=True)
    )
    found["in_plane_spacing"][0] = float(f"{found['in_plane_spacing'][0] / finer:.3g}")
    if about is not None:
        about["defaults"]["training_range"] = found
        save_atomically(state, Path(checkpoint), about)
    lines = ",\n".join(f'        "{name}": {json.dumps(pair)}' for name, pair in found.items())
    print(f'{{\n    "training_range": {{\n{lines}\n    }}\n}}')
