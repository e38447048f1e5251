"""``python -m common bundle``: print the folder of a bundle, whose configs ``python -m monai.bundle run`` reads."""

from __future__ import annotations

import importlib.util
import json
import sys

from ..bundles import BUNDLES
from ..cli_help import suggest


def print_bundles(*names: str) -> None:
    """Print the folder of each bundle, or all bundles where none is named.

    From any folder, ``python -m monai.bundle run --config_file $(mri-sr bundle udean)/configs/train.json`` trains an
    installed bundle.

    Args:
        names: of bundles, for example udean.
    """
    known = {path.parts[-3]: path for path in sorted(BUNDLES.glob("*/configs/metadata.json"))}
    for name in names:
        if name not in known:
            meant = suggest(name, known, "") or f"; there are {', '.join(known)}."
            raise ValueError(f"there is no bundle '{name}'{meant}")
    if importlib.util.find_spec("common") is None and (BUNDLES.parent / "pyproject.toml").is_file():
        print(f"for these configs put PYTHONPATH={BUNDLES.parent} before python, or install again", file=sys.stderr)
    for name in names:
        print(BUNDLES / name)
    for name in known if not names else ():
        print(f"{name:18} {json.loads(known[name].read_text(encoding='utf-8'))['name']}")
