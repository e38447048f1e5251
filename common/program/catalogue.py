"""The weights in a folder of bundles."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from ..geometry.affines import ROUNDING
from ..io.files import read_json_object
from ..runtime.distributed import choose_device
from ..runtime.unknown_keys import check_switches, has_key, suggest_key
from ..transforms.scan.scan_statistics import CheckTrainingRanged
from ..weights.loading import read_overlay
from .bundles import CONFIG, OVERLAYS, list_bundles
from .export.modules import NAME, map_strings, rename_package

_GRID = {"spacing", "grid_file"}  # options of overlays/grid.json; bundles for exams have them
_NAMED = 3  # most bundles that a message names
_LARGE = "_large"  # at the end of a file's name: the larger of two networks for a scale, as model.pt and model_large.pt
WITHIN = 1 + ROUNDING  # excess up to this factor is rounding


@dataclass(frozen=True)
class Candidate:
    """Weights of a bundle, or a bundle that learns from the scan itself, and what decides on their use.

    Attributes:
        bundle: folder of the bundle.
        overlay: overlay of the weights, to lay over inference.json; None if that needs none.
        overrides: overrides of inference.json, with the checkpoint if there is one.
        scale: voxels of the result for a voxel of the scan, along the ordered axes.
        slice_axis: as for :func:`common.geometry.affines.find_slice_permutation`; None if the scan may decide.
        ranges: lowest and highest spacing in the training in mm by axis; None if unknown.
        guided: whether it needs a guide.
        free: along which axes a method may act that needs neither weights nor a given scale: "across" the slices or
            "any"; None for other methods.
        fewest_stacks: of a contrast that the bundle needs if it makes one volume of several scans; None for others.
        is_self_trained: whether it learns from each scan first.
    """

    bundle: Path
    overlay: Path | None
    overrides: Mapping[str, Any]
    scale: tuple[int, ...]
    slice_axis: str | None
    ranges: tuple[tuple[float, float] | None, ...]
    guided: bool
    free: str | None = None
    fewest_stacks: int | None = None
    is_self_trained: bool = False

    def apply_scale(self, scale: Sequence[Any]) -> Candidate:
        """This candidate with the given scale if it takes any scale; else unchanged."""
        if self.free is None:
            return self
        return replace(self, scale=tuple(scale), overrides={**self.overrides, "scale": list(scale)}, free=None)

    @property
    def name(self) -> str:
        """Bundle and scale."""
        name = f"{self.bundle.name} {'x'.join(map(str, self.scale))}"
        return name + ", guided" * self.guided + ", large" * self.is_large

    @property
    def is_large(self) -> bool:
        """Whether these are the larger of two networks for a scale."""
        return self.checkpoint is not None and self.checkpoint.stem.endswith(_LARGE)

    @property
    def suits_device(self) -> bool:
        """Whether the network is large on a GPU, or is not on a CPU."""
        device = torch.device(self.overrides.get("device") or choose_device())
        return self.is_large == (device.type != "cpu")

    @property
    def checkpoint(self) -> Path | None:
        """File of the weights; None for a bundle without weights."""
        return self.overrides.get("checkpoint")

    @property
    def is_available(self) -> bool:
        """Whether the file of the weights exists, or none is needed."""
        return self.checkpoint is None or self.checkpoint.is_file()

    def read_overlay(self) -> dict[str, Any]:
        """The overlay of the weights; empty without weights."""
        return {} if self.checkpoint is None else read_overlay(self.checkpoint) or {}

    def load_network(self, **overrides: Any) -> tuple[Any, Any]:
        """The network with its weights, and the inferer.

        Args:
            overrides: keys of inference.json to set, if the bundle has them.
        """
        files = _list_files(self.bundle, self.overlay, self.overrides, ["cases"])
        parser = ConfigParser(_rename_package(ConfigParser.load_config_files(files)))
        parser.update({"bundle_root": str(self.bundle), **self.overrides, "amp": False})
        parser.update({key: value for key, value in overrides.items() if key in parser.get()})
        return parser.get_parsed_content("evaluator#network"), parser.get_parsed_content("inferer")

    @property
    def has_interval(self) -> bool:
        """Whether an interval may have been measured for the weights."""
        return self.checkpoint is not None and self.fewest_stacks is None

    def make_workflow(self, cases: Sequence[Any], overlays: Sequence[str] = (), **overrides: Any) -> ConfigWorkflow:
        """MONAI's workflow of the configuration, not yet initialised.

        Args:
            cases: to run, each a :class:`common.program.cases.case.Case`.
            overlays: names of files in ``common/program/cases/overlays`` that are laid over inference.json.
            overrides: further overrides by key. Paths must be ``Path``, since the parser interprets # in text.
        """
        files = _list_files(self.bundle, self.overlay, self.overrides, ["cases", *overlays])
        workflow = ConfigWorkflow(config_file=files, workflow_type="infer", logging_file=False)
        workflow.parser.set(_rename_package(workflow.parser.config))
        settings = {"bundle_root": str(self.bundle), **self.overrides}
        workflow.parser.update({**settings, **overrides, "dataset#data": list(cases)})
        return workflow


def list_candidates(bundle: str | None, overrides: Mapping[str, Any], options: Sequence[str] = ()) -> list[Candidate]:
    """List the bundles' weights, by their metadata.json and the overlays in models. Files of weights may be missing.

    Args:
        bundle: folder or name of a bundle. None: the bundle in the overlay of a given checkpoint; without a checkpoint
            all bundles except those that are only used on request and those that need no weights.
        overrides: of inference.json; each applies to the bundles that have its key. A key that only bundles on request
            have selects these.
        options: other names that a misspelt key may have meant.
    """
    if "checkpoint" in overrides:
        bundle = _identify_bundle(Path(str(overrides["checkpoint"])), bundle)
    cards = {folder: read_card(folder) for folder in list_bundles(bundle)}
    known = {folder: _select_known(folder, overrides) for folder in cards}
    # Bundles on request are for a kind of scan that the file does not show.
    able = [folder for folder, card in cards.items() if bundle is not None or not card.get("on_request", False)]
    if not all(any(key in known[folder] for folder in able) for key in overrides):
        able = [folder for folder in cards if len(known[folder]) == len(overrides)]
    if not able:
        raise ValueError(_explain_unknown_key(overrides, known, options))
    candidates = [
        _make_candidate(folder, cards[folder], known[folder], *weights)
        for folder in able
        for weights in _list_weights(folder, cards[folder], known[folder])
    ]
    return [candidate for candidate in candidates if bundle is not None or candidate.free is None]


def read_card(folder: Path) -> dict[str, Any]:
    """What decides on a bundle's use, by its metadata.json: ``scale``, ``slice_axis``, and what it needs.

    Args:
        folder: of the bundle.
    """
    file = folder / "configs" / "metadata.json"
    card, problem = read_json_object(file)
    if problem or not isinstance(card.get("selection"), dict):
        raise ValueError(f"{file}: {problem or 'found no selection'}; see that of another bundle.")
    return card["selection"]


def _identify_bundle(checkpoint: Path, bundle: str | None) -> str:
    """The bundle of weights, from their overlay. If a bundle is given, it must be the same."""
    if not checkpoint.is_file():
        raise FileNotFoundError(f"--checkpoint {checkpoint}: there is no such file.")
    overlay = read_overlay(checkpoint)
    if overlay is None:
        raise FileNotFoundError(
            f"--checkpoint {checkpoint}: there is no {checkpoint.stem}.json, which describes them, in its folder; "
            "copy it there."
        )
    bundle_name = overlay["trained"].get("bundle")
    if bundle is None and bundle_name is None:
        raise ValueError(
            f"--checkpoint {checkpoint}: {checkpoint.stem}.json does not say which bundle the weights belong to; give "
            "--bundle."
        )
    if bundle is not None and bundle_name not in (None, Path(bundle).name):
        raise ValueError(
            f"--checkpoint {checkpoint}: these are weights of {bundle_name}, expected those of --bundle {bundle}."
        )
    return bundle or bundle_name


def _select_known(folder: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides whose keys a bundle's inference.json has."""
    if not overrides:
        return {}
    config = _rename_package(ConfigParser.load_config_files(_list_files(folder, None, overrides)))
    check_switches(ConfigParser(config), overrides)
    return {key: value for key, value in overrides.items() if has_key(config, key)}


def _explain_unknown_key(overrides: Mapping[str, Any], known: Mapping[Path, Any], options: Sequence[str]) -> str:
    """The message if no bundle has all overridden keys; ``known`` are those that each bundle has."""
    contents = [ConfigParser.load_config_file(folder / CONFIG) for folder in known]
    nowhere = [key for key in overrides if not any(key in each for each in known.values())]
    lacking = nowhere[0] if nowhere else " and --".join(overrides)
    names = " or ".join(folder.name for folder in known) if len(known) <= _NAMED else "any bundle"
    return f"--{lacking}: there is no such option of {names}{suggest_key(lacking, contents, options)}"


def _list_weights(
    folder: Path, card: Mapping[str, Any], overrides: Mapping[str, Any]
) -> list[tuple[Path | None, Path | None, Mapping[str, Any]]]:
    """A bundle's weights, existing or not, each with its overlay and what this says; None without weights."""
    if "checkpoint" in overrides:
        checkpoint = Path(str(overrides["checkpoint"]))
        overlay = checkpoint.with_suffix(".json")
        return [(checkpoint, overlay, read_overlay(overlay) or {})]
    if not card["weights"]:
        return [(None, None, {})]
    files = sorted((folder / "models").glob("*.json"))
    known = {file: content for file in files if (content := read_overlay(file))}
    model = folder / "models" / "model.pt"
    alone: list[Any] = [] if model.with_suffix(".json") in known else [(model, None, {})]
    return [*((file.with_suffix(".pt"), file, content) for file, content in known.items()), *alone]


def _list_files(
    folder: Path, overlay: Path | None, options: Collection[str], overlays: Sequence[str] = ()
) -> list[str]:
    """Configs of a bundle: inference.json, overlays by name, and the overlay of the weights."""
    config = folder / CONFIG
    if _GRID & set(options) and not _GRID <= ConfigParser.load_config_file(config).keys():
        overlays = ["grid", *overlays]
    files = [config, *(OVERLAYS / f"{name}.json" for name in overlays), overlay]
    return [str(file) for file in files if file is not None]


def _make_candidate(
    folder: Path,
    card: Mapping[str, Any],
    overrides: Mapping[str, Any],
    checkpoint: Path | None,
    overlay: Path | None,
    content: Mapping[str, Any],
) -> Candidate:
    overrides = {**overrides, **({} if checkpoint is None else {"checkpoint": checkpoint})}
    known = {"scale": (1, 1, 1), **card, **content, **overrides}
    scale, ranges = known["scale"], known.get("training_range") or {}
    try:
        CheckTrainingRanged("image", ranges)
        if not isinstance(scale, list | tuple) or [type(n) in (int, float) for n in scale] != [True] * 3:
            raise ValueError(f"scale is {scale!r}, expected three numbers.")
    except ValueError as error:
        raise ValueError(f"{overlay or folder / CONFIG}: {error}") from None
    stacks, free = known.get("fewest_stacks"), None
    if checkpoint is None and "scale" not in overrides and stacks is None:
        free = "across" if tuple(scale[:2]) == (1, 1) else "any"
    in_plane, across = (ranges.get(f"{name}_spacing") for name in ("in_plane", "slice"))
    sizes = tuple(pair and tuple(pair) for pair in (in_plane, in_plane, across))
    guided, trains = known.get("guided", False), checkpoint is None and known.get("learns_from_scan", False)
    return Candidate(folder, overlay, overrides, tuple(scale), known["slice_axis"], sizes, guided, free, stacks, trains)


def _rename_package(config: Any) -> Any:
    """Name this package's modules in a config as they are called here."""
    package = str(__package__).rpartition(".")[0]
    return config if package == NAME else map_strings(config, lambda text: rename_package(text, package))
