"""What belongs to a run of a training: its folder, how it begins and ends, and what its weights are."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from ..io.files import load_state
from ..io.writing import check_writable, write_atomically
from ..runtime.distributed import get_rank
from ..runtime.time_limit import TimeLimit
from ..transforms.scan.scan_statistics import widen_range
from ..weights.saving import SavedWeights
from ..weights.task import find_config, select_changes


class RunFolder:
    """Folder of a training: its config, histories, weights and states.

    Args:
        output_dir: folder of the histories and pictures.
        ckpt_dir: folder of weights and states; default ``models`` in output_dir.
        resume: whether to continue the run from its state, or begin a new run if there is none.
        overwrite: whether to replace an existing run.
        minutes: after which the training ends, with all its stages: its epoch ends early, is validated and saved. A
            resumed run goes on from there. None for no limit.
        save_minutes: between states within an epoch, see :class:`common.handlers.ResumableState`.
        settings: further values, by their keys, with which alone a run is resumed, such as the fold that is held out.
        model: what ``model.json``, the overlay of the weights, says of them. ``bundle_root`` is the bundle's folder.
            ``degradation`` is from HR to LR: the overlay has its factors and offset. The LR of the volumes
            ``lr_volumes`` is like the scans that the weights are for: the overlay has the range of their statistics, so
            that inference warns of other scans. All other keys are as ``sizes``. What the training changed of its
            task is added, see :mod:`common.weights.task`.
        sizes: further values that weights need, by the keys of the configs, besides the network's own ``sizes``; see
            :class:`common.weights.saving.SavedWeights`.

    Raises:
        ValueError: if both ``resume`` and ``overwrite`` are true, or ``minutes`` is no number above 0.
    """

    stage: int | str | None = None
    invalidates: Sequence[str | os.PathLike] = ()

    def __init__(
        self,
        output_dir: str | os.PathLike,
        ckpt_dir: str | os.PathLike | None = None,
        resume: bool = False,
        overwrite: bool = False,
        minutes: float | None = None,
        save_minutes: float | None = 5,
        settings: Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
        sizes: Mapping[str, Any] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.ckpt_dir = Path(ckpt_dir) if ckpt_dir else self.output_dir / "models"
        self.resume, self.overwrite = resume, overwrite
        self.time_limit, self.save_minutes, self.settings = TimeLimit(minutes), save_minutes, dict(settings or {})
        self.sizes = {**(model or {}), **(sizes or {})}
        self.bundle_root = self.sizes.pop("bundle_root", ".")
        self.degradation = self.sizes.pop("degradation", None)
        self.lr_volumes = self.sizes.pop("lr_volumes", None)
        self.config = find_config()
        self.task = select_changes(self.config, self.bundle_root)
        if self.resume and self.overwrite:
            raise ValueError(
                "resume and overwrite are both true; give one: resume continues a run, overwrite replaces it."
            )

    def select_stage(self, stage: int | str, invalidates: Sequence[str | os.PathLike] = ()) -> RunFolder:
        """The same run, for one of its stages.

        Args:
            stage: number from 1, or name, of the stage, which is part of file names; or a pattern of names.
            invalidates: files that depend on this stage, besides those of later stages.
        """
        folder = copy.copy(self)
        folder.stage, folder.invalidates = stage, invalidates
        return folder

    @property
    def suffix(self) -> str:
        """Suffix of the names of the stage's files."""
        return "" if self.stage is None else f"_{self.stage}"

    @property
    def history_file(self) -> Path:
        """File of the losses."""
        return self.output_dir / f"history{self.suffix}.jsonl"

    @property
    def state_file(self) -> Path:
        """File to resume from."""
        return self.ckpt_dir / f"training_state{self.suffix}.pt"

    def save_config(self) -> None:
        """Write ``config.json`` once, with overlays and overrides, in the first process of a run of a config."""
        config, self.config = self.config, None
        if config is not None and get_rank()[0] == 0:
            with write_atomically(self.output_dir / "config.json") as temporary:
                ConfigParser.export_config_file(config, temporary, indent=4, default=str)

    def list_later_files(self) -> list[Path]:
        """Weights and states of later stages, which depend on this one."""
        if not isinstance(self.stage, int):
            return []
        files = [*self.ckpt_dir.glob("training_state_*.pt"), *self.ckpt_dir.glob("stage_*.*")]
        return sorted(file for file in files if (n := file.stem.rpartition("_")[2]).isdigit() and int(n) > self.stage)

    def check_overwriting(self, writes_model: bool) -> None:
        """Refuse to begin a training that would overwrite another training or weights.

        Args:
            writes_model: whether the run writes a new model.pt, instead of continuing that of an earlier stage.

        Raises:
            FileExistsError: if the folder holds another run, or weights without a run.
            PermissionError, NotADirectoryError: if it is not writable.
        """
        check_writable(self.output_dir, self.ckpt_dir)
        run = [
            path
            for pattern in (self.history_file, self.state_file)
            for path in sorted(pattern.parent.glob(pattern.name))
        ]
        run += self.list_later_files()
        model = [path for path in [self.ckpt_dir / "model.pt"] if writes_model and path.is_file()]
        if self.overwrite or (self.resume and run) or not (run or model):
            return
        if self.resume:
            raise FileExistsError(
                f"{self.ckpt_dir} holds {model[0].name}, but no run that --resume True can continue. This run would "
                "overwrite it. Give another --output_dir or --ckpt_dir, or --overwrite True."
            )
        places = " and ".join(dict.fromkeys(str(path.parent) for path in run + model))
        raise FileExistsError(
            f"{places}: there is another run ({', '.join(path.name for path in run + model)}). Continue it with "
            "--resume True, give another --output_dir, or replace it with --overwrite True."
        )

    def make_writer(self, network: nn.Module, names: Sequence[str], precision: str, zoom: float) -> SavedWeights:
        """Make the writer of a network's weights for these names of files.

        Args:
            network: whose weights are written.
            names: of the files.
            precision: type of numbers in training.
            zoom: by which the training makes pixels finer.
        """
        known, offset = {**self.task, **self.sizes}, None
        if self.degradation is not None:
            known, offset = {"scale": list(self.degradation.factors), **known}, list(self.degradation.offset)
        training_range = widen_range([] if self.lr_volumes is None else self.lr_volumes.statistics)
        if "in_plane_spacing" in training_range:
            finest, coarsest = training_range["in_plane_spacing"]
            training_range["in_plane_spacing"] = [float(f"{finest / zoom:.3g}"), coarsest]
        paths = [self.ckpt_dir / name for name in names]
        return SavedWeights(network, paths, known, offset, self.bundle_root, precision, training_range)

    def read_amp(self) -> bool | None:
        """Whether the run that is resumed uses autocast; None if there is none, or its state does not say."""
        saved = load_state(self.state_file, "cpu") if self.resume and self.state_file.is_file() else None
        return saved.get("amp") if isinstance(saved, dict) else None
