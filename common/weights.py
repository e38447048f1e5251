"""Weights, and the overlay beside them that says what they are: ``model.pt`` and ``model.json``, an ordinary config."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from .cli_help import called
from .degradations import Degradation
from .io.files import as_json, load_state, read_object, replacing
from .networks.slab import to_channels_last

_Network = TypeVar("_Network", bound=nn.Module)

# What the state of a training has, see common.handlers.ResumableState.
STATE = {"iteration", "max_epochs", "epoch_length", "threads", "settings", "graph", "players", "random"}


class SavedWeights:
    """Writes a network's weights, and beside each file the overlay that says what they are.

    The overlay is a config: laid over train.json, evaluate.json or inference.json, it gives the sizes that the weights
    need, their ``checkpoint``, the ``digest`` of their tensors, and under ``trained`` where they come from.

    Args:
        network: whose ``state_dict`` is kept.
        paths: of the files; all hold the same.
        sizes: values by the keys of the bundle's configs that these weights need, beside those in the network's
            attribute ``sizes``, if it has one; what JSON can hold.
        offset: centre of LR voxel 0 in HR voxels along each axis; None where it does not matter.
        bundle_root: folder of the bundle.
        precision: in which the network is trained, such as "bfloat16".
    """

    def __init__(
        self,
        network: nn.Module,
        paths: Sequence[str | os.PathLike],
        sizes: Mapping[str, Any],
        offset: Sequence[float] | None = None,
        bundle_root: str | os.PathLike = ".",
        precision: str = "float32",
    ) -> None:
        self.network, self.precision = network, precision
        self.paths = [Path(path) for path in paths]
        self.sizes = as_plain({**getattr(network, "sizes", {}), **sizes})
        self.offset = as_plain(offset)
        self.bundle_root = Path(bundle_root)

    def save(self, iteration: int | None = None, **metrics: float) -> None:
        """Write the files as the weights are now.

        Args:
            iteration: of the training, from 0; None where it is not known.
            metrics: of a validation of these weights, by name.
        """
        state = self.network.state_dict()
        metadata = self.bundle_root / "configs" / "metadata.json"
        trained = {
            "bundle": self.bundle_root.resolve().name,
            "version": json.loads(metadata.read_text())["version"] if metadata.is_file() else None,
            "network": type(self.network).__name__,
            "offset": self.offset,
            "precision": self.precision,
            **({} if iteration is None else {"iteration": iteration, **metrics}),
        }
        known = {"digest": digest_of(state), "trained": trained, **self.sizes}
        for path in self.paths:
            write(state, path, {"checkpoint": str(path.absolute()), **known})


def write(state: Mapping[str, torch.Tensor], path: Path, overlay: Mapping[str, Any]) -> None:
    """Write weights and their overlay; each file is whole or as it was.

    Args:
        state: tensors by name.
        path: of the weights.
        overlay: keys and values of the config beside them.
    """
    with replacing(path) as temporary, replacing(path.with_suffix(".json")) as beside:
        beside.write_text(_as_text(overlay))
        with temporary.open("wb") as file:
            torch.save(state, file)
            os.fsync(file.fileno())


def write_overlay(path: str | os.PathLike, overlay: Mapping[str, Any]) -> None:
    """Write the overlay of weights that are there; it is whole or as it was.

    Args:
        path: of the weights.
        overlay: keys and values of the config beside them.
    """
    with replacing(Path(path).with_suffix(".json")) as beside:
        beside.write_text(_as_text(overlay))


def read_overlay(path: str | os.PathLike) -> dict[str, Any] | None:
    """What lies beside a file of weights and says what they are; None where nothing does.

    Raises:
        ValueError: when the file cannot be read, or is no overlay of weights.
    """
    file = Path(path).with_suffix(".json")
    if not file.is_file():
        return None
    overlay, problem = read_object(file)
    if problem := problem or _wrong_in(overlay):
        raise ValueError(f"{file}: not the overlay of weights ({problem}); mend it, get it anew, or train anew.")
    return overlay


def no_overlay(path: Path) -> str:
    """What to do where weights have no overlay beside them, as a message."""
    return (
        f"There is no {path.stem}.json beside the weights: copy it there. For weights of an earlier version "
        f"{called('overlay')} --checkpoint {path} makes it."
    )


def load(
    network: _Network,
    path: str | os.PathLike,
    device: torch.device | str = "cpu",
    digest: str | None = None,
    degradation: Degradation | None = None,
    option: str = "checkpoint",
) -> _Network:
    """Load weights into a network of the same architecture, and refuse what does not belong together.

    Args:
        network: to load into; the overlay must have the same values as its attribute ``sizes``, if it has one.
        path: of a file with the network's ``state_dict``, loaded with ``weights_only=True``.
        device: of the network.
        digest: of the tensors, as the config has it; None where it does not say.
        degradation: of the config; the overlay beside the weights must have the same scale and place of LR voxels.
        option: what the path is called where it is set, for messages.

    Returns:
        The network, on the device, in evaluation mode. Its attribute ``origin`` has what the overlay says under
        ``trained``, with ``path``, ``sha256`` and ``file_sha256``.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is corrupt or was changed, when its weights are those of another network,
            architecture or config, or when not all of them are finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there are no weights at {path}; train the bundle first, or name a file with --{option} PATH, as for "
            "weights that were moved."
        )
    overlay = read_overlay(path) or {}
    trained = overlay.get("trained", {})
    if trained.get("network", type(network).__name__) != type(network).__name__:
        raise ValueError(
            f"{path}: expected the weights of a {type(network).__name__}, found those of a {trained['network']}, of "
            f"the bundle {trained.get('bundle')}; name a file of this bundle with --{option} PATH."
        )
    if degradation is not None:
        check_grid(path, overlay, degradation)
    _check_sizes(path, overlay, getattr(network, "sizes", {}))
    state = load_state(path, device)
    _check_tensors(path, state, network, option, lies_beside=bool(overlay))
    found = digest_of(state)
    check_digest(path, found, overlay, digest)
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(
            f"{path}: {bad[0]} and {len(bad) - 1} other weights are NaN or infinite; train anew, or get a whole file."
        )
    try:
        network.load_state_dict(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    file_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    network.origin = {**trained, "sha256": found, "path": str(path), "file_sha256": file_sha256}  # type: ignore[assignment]
    return to_channels_last(network, device).eval()


def check_digest(path: str | os.PathLike, found: str | None, overlay: Mapping[str, Any], digest: str | None) -> None:
    """Refuse weights that are others than their overlay, or the config, says.

    Args:
        path: of the weights.
        found: digest of their tensors; None where they do not tell.
        overlay: what lies beside them; empty where nothing does.
        digest: as the config has it; None where it does not say.
    """
    path = Path(path)
    if found != overlay.get("digest", found):
        raise ValueError(
            f"{path}: these are not the weights that {path.with_suffix('.json').name} beside them describes (another "
            "digest); one of the files is damaged or was changed, or a training was killed while it wrote them. Get "
            "both files anew, or go on with that training by --resume True."
        )
    if digest is not None and found != digest:
        raise ValueError(
            f"{path}: the config is that of other weights (its digest is another). {_lay(path, bool(overlay))}"
        )


def check_grid(path: str | os.PathLike, overlay: Mapping[str, Any], degradation: Degradation) -> None:
    """Refuse weights that were trained for another scale, or for LR voxels that lie elsewhere."""
    offset = overlay.get("trained", {}).get("offset")
    # The degradation is no part of an overlay.
    known = "Lay the config with the degradation that they were trained with over this one, or give --degradation."
    checks = [
        ("scale", overlay.get("scale"), list(degradation.factors), f"Leave out what sets it. {_lay(Path(path), True)}"),
        ("offset of LR voxels", offset, list(degradation.offset), known),
    ]
    for name, theirs, ours, advice in checks:
        if theirs is not None:
            _check_same(path, f"the {name}", theirs, ours, advice)


def digest_of(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the names, types, shapes and values of tensors, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()


def as_plain(value: Any) -> Any:
    """A value as it comes back from JSON: tuples are lists there.

    Raises:
        ValueError: when JSON cannot hold it.
    """
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise ValueError(f"sizes: found {value!r}, expected what JSON can hold.") from None


def _as_text(overlay: Mapping[str, Any]) -> str:
    return as_json(overlay, indent=4) + "\n"


def _wrong_in(overlay: Mapping[str, Any]) -> str | None:
    """What is wrong with an overlay, which people may edit; None where nothing is."""
    if not {"digest", "trained"} <= overlay.keys():
        return "found no digest and trained, expected both"
    trained = overlay["trained"]
    if not isinstance(trained, dict):
        return f"trained is {trained!r}, expected an object"
    named = {"checkpoint": overlay.get("checkpoint", ""), "digest": overlay["digest"]}
    named |= {f"trained#{key}": trained.get(key, "") for key in ("bundle", "network")}
    wrong = [f"{key} is {value!r}, expected a text" for key, value in named.items() if not isinstance(value, str)]
    return wrong[0] if wrong else None


def _check_tensors(path: Path, state: Any, network: nn.Module, option: str, lies_beside: bool) -> None:
    """Refuse what is no file of weights, or not of this network."""
    if isinstance(state, dict) and STATE <= state.keys():
        files = [path.with_name("model_last.pt"), path.with_name("model.pt")]
        there = [f"--{option} {file}" for file in files if file.is_file()]
        raise ValueError(
            f"{path} is the state of a training at iteration {state['iteration']}, from which --resume True goes on, "
            f"and no file of weights; name its weights{': ' + ' or '.join(there) if there else ''}."
        )
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected a dictionary of weights, found {type(state).__name__}.")
    own = network.state_dict()
    missing = [k for k in own if k not in state]
    extra = [str(k) for k in state if k not in own]
    other = [
        f"{k} {_kind(state[k])} instead of {_kind(v)}" for k, v in own.items() if k in state and not _fits(state[k], v)
    ]
    if missing or extra or other:

        def some(names: list[str]) -> str:
            return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"

        raise ValueError(
            f"{path}: the weights are of another architecture. Missing: {some(missing)}. Unknown: {some(extra)}. Of "
            f"another size or kind: {some(other)}. {_lay(path, lies_beside)}"
        )


def _check_sizes(path: Path, overlay: Mapping[str, Any], sizes: Mapping[str, Any]) -> None:
    """Refuse weights for a network of other sizes, of which some, as ``residual``, do not show in the tensors."""
    for key in overlay.keys() & sizes.keys():
        _check_same(path, key, overlay[key], sizes[key], _lay(path, True))


def _check_same(path: str | os.PathLike, name: str, theirs: Any, ours: Any, advice: str) -> None:
    """Refuse a value that the weights were trained with another of."""
    if theirs != as_plain(ours):
        raise ValueError(f"{path}: {name} is {as_plain(ours)}, but these weights were trained with {theirs}. {advice}")


def _lay(path: Path, lies_beside: bool) -> str:
    """What to do where config and weights differ."""
    if lies_beside:
        overlay = path.with_suffix(".json")
        return f"Lay the weights' own overlay over the config: --config_file \"['CONFIG.json','{overlay}']\"."
    return no_overlay(path)


def _fits(value: Any, own: torch.Tensor) -> bool:
    """Whether something from a file can be a network's own weight."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_meta
        and value.shape == own.shape
        and value.is_floating_point() == own.is_floating_point()
        and not value.is_complex()
    )


def _kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    layout = "on no device" if value.is_meta else "" if value.layout == torch.strided else str(value.layout)
    return " ".join(filter(None, (str(tuple(value.shape)), str(value.dtype).removeprefix("torch."), layout)))
