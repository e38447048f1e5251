"""The folders of the bundles and their options, without torch, so that a wrong command line is refused at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from .cli_help import suggest

BUNDLES = Path(__file__).parents[2] / "bundles"
CONFIG = Path("configs", "inference.json")
OVERLAYS = Path(__file__).parent / "cases" / "overlays"  # what mri-sr lays over a bundle's inference.json


def list_bundles(bundle: str | None) -> list[Path]:
    """Folders of the bundles.

    Args:
        bundle: name or folder of the only one; None for all. A name is that of a bundle that is shipped, whatever
            folders are here.
    """
    every = sorted(path.parents[1] for path in BUNDLES.glob("*/configs/inference.json"))
    if bundle is None:
        return every
    folder = {folder.name: folder for folder in every}.get(bundle, Path(bundle))
    if (folder / CONFIG).is_file():
        return [folder.absolute()]
    raise FileNotFoundError(
        f"--bundle '{bundle}': this is no bundle; expected the folder of one, or one of "
        f"{', '.join(folder.name for folder in every)}."
    )


def refuse_unknown_options(bundle: str | None, override: Iterable[str], options: Iterable[str]) -> None:
    """Refuse a key that no bundle's inference.json has.

    Args:
        bundle: name or folder of the only one; None for any.
        override: the keys.
        options: other names that a misspelt key may have meant.

    Raises:
        ValueError: names the key, and the nearest.
    """
    files = [*(folder / CONFIG for folder in list_bundles(bundle)), OVERLAYS / "grid.json"]
    known = {key for file in files for key in json.loads(file.read_text(encoding="utf-8"))}
    for key in override:
        if re.split("#|::", key.lstrip("+"))[0] not in known:
            which = "any bundle" if bundle is None else bundle
            raise ValueError(f"--{key}: there is no such option of {which}{suggest(key, known.union(options)) or '.'}")
