"""Which weights there are in a folder of bundles, and which of them suit a scan, by its spacing."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser, ConfigWorkflow

from .blocks import ROOT, written_out
from .export.modules import NAME, renamed
from .geometry import slice_permutation

BUNDLES = ROOT / "bundles"
# So far outside of the training's spacing are weights used, with a warning: to this factor they were better than cubic
# on a real head that was made into a stack of thick slices.
_TOO_FINE, _TOO_COARSE = 2.0, 2.5


@dataclass(frozen=True)
class Offer:
    """Weights of a bundle, with what of them decides on their use.

    Attributes:
        bundle: its folder.
        files: of the configuration: inference.json, and an overlay where the weights have one.
        overrides: of the configuration.
        scale: voxels of the result for a voxel of the scan, along the ordered axes.
        slice_axis: as for :func:`common.geometry.slice_permutation`.
        ranges: lowest and highest spacing in the training by axis; None where it is not known.
        guided: whether it needs a guide.
        there: whether the file of the weights is there.
    """

    bundle: Path
    files: tuple[Path, ...]
    overrides: Mapping[str, Any]
    scale: tuple[int, ...]
    slice_axis: str
    ranges: tuple[tuple[float, float] | None, ...]
    guided: bool
    there: bool

    @property
    def name(self) -> str:
        """Bundle and scale."""
        return f"{self.bundle.name} {'x'.join(map(str, self.scale))}" + (", guided" if self.guided else "")

    def workflow(self, entries: Sequence[Mapping[str, Any]], **overrides: Any) -> ConfigWorkflow:
        """MONAI's workflow of the configuration for these entries, not yet initialised."""
        workflow = ConfigWorkflow(
            config_file=[str(file) for file in self.files],
            workflow_type="infer",
            logging_file=str(self.bundle / "configs" / "logging.conf"),
            bundle_root=str(self.bundle),
        )
        # A tuple, as the parser looks for references in lists, and reads the # in a path as its own.
        workflow.parser.update({**self.overrides, **overrides, "dataset#data": tuple(entries)})
        workflow.parser.set(_prepared(workflow.parser.config))
        return workflow


@dataclass(frozen=True)
class Choice:
    """An offer for a scan.

    Attributes:
        offer: the weights.
        slice_axis: to use them with.
        spacing: of the scan and of the result in mm, along the axes as they are stored.
        excess: how far the scan lies outside of the training's spacing: by which factor, 1 where it is inside.
        doubt: what speaks against the use; None where nothing does.
    """

    offer: Offer
    slice_axis: str
    spacing: tuple[tuple[float, ...], tuple[float, ...]]
    excess: float
    doubt: str | None

    @property
    def anisotropy(self) -> float:
        """Longest over shortest side of the result's voxels."""
        return max(self.spacing[1]) / min(self.spacing[1])


def offers(bundle: str | None = None, **overrides: Any) -> list[Offer]:
    """What the bundles have weights for, or would have.

    An overlay inference_<name>.json is one of its own where it names weights of its own. So are the weights that a
    guided bundle has for scans without a guide.

    Args:
        bundle: folder of a bundle, or its name; default all.
        overrides: of the configurations; one with a checkpoint has no overlays, and the range of its training is not
            known unless it is given too.

    Raises:
        FileNotFoundError: when there is no such bundle.
        ValueError: when no bundle has the keys that are overridden; those that lack one are left out.
    """
    configs = {
        folder: ConfigParser(ConfigParser.load_config_file(str(folder / "configs" / "inference.json")))
        for folder in _folders(bundle)
    }
    able = [folder for folder, config in configs.items() if all(key in config for key in overrides)]
    if not able:
        known = sorted({key for config in configs.values() for key in config.get() if not key.startswith("_")})
        lacking = next((key for key in overrides if key not in known), " and --".join(overrides))
        close = difflib.get_close_matches(lacking, known, n=2)
        raise ValueError(
            f"--{lacking}: no inference.json of {', '.join(folder.name for folder in configs)} has that"
            + (f"; did you mean {' or '.join(close)}?" if close else ".")
        )
    found = []
    for folder in able:
        base = folder / "configs" / "inference.json"
        variants: list[tuple[tuple[Path, ...], dict[str, Any]]] = [((base,), {})]
        if "checkpoint" in overrides:
            variants = [((base,), {"training_range": None} if "training_range" in configs[folder] else {})]
        else:
            overlays = sorted(base.parent.glob("inference_*.json"))
            variants += [((base, path), {}) for path in overlays if "checkpoint" in json.loads(path.read_text())]
        if "guided" in configs[folder] and "guided" not in overrides:
            variants += [(files, {**own, "guided": False}) for files, own in variants]
        found += [_offer(folder, files, {**own, **overrides}) for files, own in variants]
    return found


def choose(affine: np.ndarray, known: Sequence[Offer], guided: bool) -> list[Choice]:
    """What may be done with a scan: what fits its spacing best first, then what makes its voxels most nearly cubes.

    Args:
        affine: 4x4, of the scan, voxel to world in mm.
        known: weights that there are, or might be.
        guided: whether there is a guide.
    """
    choices = []
    for offer in known:
        axes = [offer.slice_axis] + (["auto"] if len(set(offer.scale)) > 1 and offer.slice_axis != "auto" else [])
        for axis in axes if offer.guided == guided else ():
            try:
                order = slice_permutation(affine, axis)
            except ValueError:
                continue  # the spacing does not tell which axis runs across the slices
            choices.append(_choice(affine, offer, axis, order))
    # Sorting is stable: what is named first counts where nothing else does.
    return sorted(choices, key=lambda choice: (round(choice.excess, 2), round(choice.anisotropy, 2)))


def in_words(spacing: Sequence[float]) -> str:
    """Voxel sizes in mm."""
    return " x ".join(f"{size:.3g}" for size in spacing) + " mm"


def _folders(bundle: str | None) -> list[Path]:
    every = sorted(path.parents[1] for path in BUNDLES.glob("*/configs/inference.json"))
    if bundle is None:
        return every
    for folder in (Path(bundle), BUNDLES / bundle):
        if (folder / "configs" / "inference.json").is_file():
            return [folder.absolute()]
    raise FileNotFoundError(
        f"--bundle '{bundle}': there is no configs/inference.json; expected the folder of a bundle, or one of "
        f"{', '.join(folder.name for folder in every)}."
    )


def _offer(folder: Path, files: tuple[Path, ...], overrides: dict[str, Any]) -> Offer:
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.update({**overrides, "bundle_root": str(folder)})
    parser.set(_prepared(parser.config))

    def content(key: str, otherwise: Any) -> Any:
        return parser.get_parsed_content(key) if key in parser else otherwise

    ranges = content("training_range", None) or {}
    in_plane, across = (ranges.get(f"{name}_spacing") for name in ("in_plane", "slice"))
    return Offer(
        bundle=folder,
        files=files,
        overrides=overrides,
        scale=tuple(content("scale", (1, 1, 1))),
        slice_axis=content("slice_axis", "auto"),
        ranges=tuple(pair and tuple(pair) for pair in (in_plane, in_plane, across)),
        guided=str(content("guided", False)).lower() == "true",
        there=os.path.isfile(content("checkpoint", "")),
    )


def _choice(affine: np.ndarray, offer: Offer, axis: str, order: Sequence[int]) -> Choice:
    stored = np.linalg.norm(affine[:3, :3], axis=0)
    ordered = stored[list(order)]
    after = np.empty(3)
    after[list(order)] = ordered / offer.scale
    fine = [low / size for size, (low, _) in _ranged(ordered, offer)]
    coarse = [size / high for size, (_, high) in _ranged(ordered, offer)]
    acted = [low / size for size, (low, _), scale in _ranged(ordered, offer, offer.scale) if scale > 1]
    doubt = None
    if acted and min(acted) > _TOO_FINE:
        doubt = f"its voxels are {min(acted):.1f} times finer than the finest that these weights sharpen"
    elif coarse and max(coarse) > _TOO_COARSE:
        doubt = f"its voxels are {max(coarse):.1f} times coarser than the coarsest that these weights know"
    spacing = tuple(float(size) for size in stored), tuple(float(size) for size in after)
    return Choice(offer, axis, spacing, max([1.0, *fine, *coarse]), doubt)


def _ranged(ordered: np.ndarray, offer: Offer, *others: Sequence[Any]) -> list[tuple]:
    """Spacing, range and others of the axes whose range is known."""
    return [row for row in zip(ordered, offer.ranges, *others, strict=True) if row[1] is not None]


def _prepared(config: Any) -> Any:
    """A configuration that runs from any folder, and under whatever name this package is installed."""
    return _renamed(written_out(config))


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    return renamed(value, __package__) if isinstance(value, str) and __package__ != NAME else value
