"""What a result's file says of its origin."""

from __future__ import annotations

import json
import os

from ..degradations.base import Degradation
from ..io.files import find_shipped


def describe_bundle(bundle_root: str | os.PathLike) -> dict[str, str]:
    """Name of a bundle, from its folder, and version, from its metadata.json."""
    root = find_shipped(bundle_root).absolute()
    path = root / "configs" / "metadata.json"
    version = json.loads(path.read_text()).get("version") if path.is_file() else None
    return {"name": root.name, **({"version": version} if version else {})}


def describe_result(bundle_root: str | os.PathLike, degradation: Degradation | None) -> str:
    """Description in a result's file, such as ``super-resolved 2x2x1, research only, bundle udean 0.6.0``."""
    factors = "" if degradation is None else f" {_format_factors(degradation)}"
    return " ".join([f"super-resolved{factors}, research only, bundle", *describe_bundle(bundle_root).values()])


def _format_factors(degradation: Degradation) -> str:
    return "x".join(f"{factor:g}" for factor in degradation.factors)
