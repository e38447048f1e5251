"""Super-resolution of a DICOM MR series with an exported bundle, as a MONAI Deploy application."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Model, RuntimeEnv
from operators import BundleOperator, LoaderOperator, SelectorOperator, VolumeOperator, WriterOperator

from common.runtime.errors import get_message

# Keys of inference.json with paths of NIfTI files; DICOM is read from -i and written to -o.
_OF_FILES = {"bundle_root", "dataset_dir", "output_dir", "lr", "guide", "subject", "imports"}


class App(Application):
    """DICOM series in, DICOM series out.

    Args:
        context: with the input and output folder.
        bundle: folder of an exported bundle.
        overrides: values for keys of its ``inference.json``.
        part: folder in the output folder for incomplete results.
        series: SeriesInstanceUID of the series to super-resolve, or None for the only MR series.
        guide: SeriesInstanceUID of the guide of a guided bundle, or None.
    """

    def __init__(
        self,
        context: AppContext,
        bundle: Path,
        overrides: Mapping[str, Any],
        part: Path,
        series: str | None = None,
        guide: str | None = None,
    ) -> None:
        self.context, self.bundle, self.overrides, self.part = context, bundle, overrides, part
        self.series, self.guide = series, guide
        # Without our own arguments, because Holoscan would parse them.
        super().__init__([sys.executable, sys.argv[0]])

    def compose(self) -> None:
        """Connect the operators."""
        names = ["image", "guide"] if self.guide else ["image"]
        loader = LoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(self.context.input_path), name="loader"
        )
        selector = SelectorOperator(self, series=self.series, guide=self.guide, name="selector")
        registers = self.overrides.get("register") is True
        volume = VolumeOperator(self, names=names, single_frame=not registers, name="volume")
        bundle = BundleOperator(
            self,
            app_context=self.context,
            bundle=self.bundle,
            overrides={**self.overrides, "output_dir": str(self.part)},
            names=names,
            name="bundle",
        )
        writer = WriterOperator(self, output=Path(self.context.output_path), part=self.part, name="writer")
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(volume, bundle, {(name, name) for name in names})
        self.add_flow(volume, writer, {("source", "source")})
        self.add_flow(bundle, writer, {("pred", "pred")})


def main(argv: Sequence[str]) -> int:
    """Run the application.

    Args:
        argv: the command line.

    Returns:
        The exit code: 0 if the series is written, 1 if the input is wrong, 2 if the command line is wrong.
    """
    parser = argparse.ArgumentParser(prog="deploy", add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--series", metavar="UID", help="SeriesInstanceUID to super-resolve (default: the only MR series)"
    )
    parser.add_argument("--guide", metavar="UID", help="SeriesInstanceUID of the guide, for guided bundles")
    if {"-h", "--help"} & set(argv[1:]):
        parser.print_help()
        print(
            "  --KEY VALUE  for any key of the bundle's inference.json, such as --slice_axis SI\n\nand the SDK's own:\n"
        )
        Application.init_app_context([argv[0], "-h"])
    options, rest = parser.parse_known_args(argv[1:])
    try:
        bundle = find_bundle(_get_model_path(rest))
        overrides, rest = read_overrides(rest, bundle)
        context = Application.init_app_context([argv[0], *rest])
        check_guide(bundle, overrides, options.guide)
        if not Path(context.input_path).is_dir():
            raise ValueError(f"{context.input_path}: no such folder; give the folder of the DICOM files with -i.")
        context.models = Model(str(bundle))
        output = Path(context.output_path)
        output.mkdir(parents=True, exist_ok=True)
        # Made first, so a folder that is not writable fails before the computation.
        with tempfile.TemporaryDirectory(prefix=".part-", dir=output) as part:
            App(context, bundle, overrides, Path(part), options.series, options.guide).run()
    except Exception as error:
        # Unexpected errors keep their traceback.
        if not isinstance(error, (ValueError, OSError, RuntimeError)):
            traceback.print_exception(error)
        print(f"error: {get_message(error)}", file=sys.stderr)
        return 1
    return 0


def _get_model_path(argv: Sequence[str]) -> Path:
    """The model's path as the SDK finds it: from the command line, else from the environment."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", "--model", default=RuntimeEnv().model)
    return Path(parser.parse_known_args(argv)[0].model).absolute()


def find_bundle(path: Path) -> Path:
    """Find the folder of the bundle: the model path, or the only folder in it, as in packaged apps.

    Raises:
        ValueError: if there is not exactly one exported bundle.
    """
    folders = [
        folder for folder in (path, *sorted(path.glob("*"))) if (folder / "configs" / "inference.json").is_file()
    ]
    if len(folders) != 1:
        names = ", ".join(folder.name for folder in folders) or "none"
        raise ValueError(
            f"{path}: expected the folder of one exported bundle, with configs/inference.json; found {names}. Give it "
            "with -m, for example -m dist/udean_window."
        )
    return folders[0]


def read_overrides(argv: Sequence[str], bundle: Path) -> tuple[dict[str, Any], list[str]]:
    """Take ``--KEY VALUE`` for keys of the bundle's ``inference.json`` out of a command line.

    The overlay of a ``--checkpoint``, which describes the weights, is read before the other keys.

    Returns:
        The values by key, parsed if they are JSON, and the rest of the command line.
    """
    config = _read_inference_config(bundle)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for key, value in config.items():
        if key not in _OF_FILES and not isinstance(value, dict):
            choices = (True, False, "auto") if isinstance(value, bool) else None
            parser.add_argument(f"--{key}", type=_parse_json_or_text, choices=choices)
    parsed, rest = parser.parse_known_args(argv)
    overrides = vars(parsed)
    if "checkpoint" in overrides and (overlay := Path(str(overrides["checkpoint"])).with_suffix(".json")).is_file():
        overrides = {**_read_json(overlay), **overrides}
    return overrides, rest


def check_guide(bundle: Path, overrides: Mapping[str, Any], guide: str | None) -> None:
    """Refuse a guide for a bundle without guides, and a missing guide for a guided bundle.

    Raises:
        ValueError: if the guide does not fit; the message says what to give.
    """
    guided = _is_guided(bundle, overrides)
    if guided and guide is None:
        raise ValueError(
            f"{bundle.name} needs a guide, a second series, finer in plane and of another contrast. Name both: "
            "--series SeriesInstanceUID --guide SeriesInstanceUID. Or give --checkpoint with weights without a guide."
        )
    if guide is not None and not guided:
        raise ValueError(f"{bundle.name} takes no guide; leave --guide out.")


def _is_guided(bundle: Path, overrides: Mapping[str, Any]) -> bool:
    """Whether the bundle takes a guide, by its weights or an override."""
    return {**_read_inference_config(bundle), **overrides}.get("guided", False)


def _read_inference_config(bundle: Path) -> dict[str, Any]:
    return _read_json(bundle / "configs" / "inference.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); the file is damaged, copy it again.") from None


def _parse_json_or_text(text: str) -> Any:
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text
