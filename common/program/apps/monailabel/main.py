"""A MONAI Label app that serves the exported super-resolution bundles of a folder."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from monai.bundle import ConfigParser
from monai.inferers import Inferer
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.tasks.infer.basic_infer import BasicInferTask
from monailabel.utils.others.generic import name_to_device, remove_file

logger = logging.getLogger(__name__)

_OF_FILES = {"check_mr"}  # switches of inference.json about files, of which a request knows nothing


def _find_root_cause(error: BaseException) -> str:
    """The first error of a chain, because MONAI wraps the errors of a config in others; the app stands alone."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _is_inside(path: Any, folder: str) -> bool:
    """Whether a path is in a folder, also for relative paths."""
    return Path(os.path.abspath(folder)) in Path(os.path.abspath(str(path))).parents


def _free_memory() -> None:
    """Free the memory of a request; bundles let Linux's C library keep it, which is faster for a batch."""
    gc.collect()
    torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other C libraries do not keep memory
        ctypes.CDLL(None).malloc_trim(0)


class SuperResolutionTask(BasicInferTask):
    """MONAI Label's task with the sections of a bundle's ``configs/inference.json``, with one image per request.

    A request can set the config's true/false options, except those that the weights' overlay sets, and ``..._axis``.
    MONAI Label's own task for bundles needs torchvision (bundle.py:25), and leaves out the weights' overlay (309).

    Args:
        folder: of the bundle.
        results: this task's folder for files of the config; results are moved to its parent.

    Raises:
        ValueError: if the bundle takes several scans.
        Exception: of the config, if the bundle does not load.
    """

    def __init__(self, folder: Path, results: Path) -> None:
        self.folder, self.results = folder.resolve(), results
        metadata = json.loads((folder / "configs" / "metadata.json").read_text())
        if "fewest_stacks" in metadata.get("selection", {}):
            raise ValueError("it takes several scans of an exam, and a request here has one; use mri-sr.")
        self.version = metadata["version"]
        self._load_evaluator({})
        scale = f"{' x '.join(map(str, self.scale))} (in plane, in plane, across the slices)"
        description = f"{metadata['description']} Version {self.version}, scale {scale}."
        super().__init__(None, self.evaluator.network, InferType.OTHERS, [], 3, description, config=self.options)

    def info(self) -> dict[str, Any]:
        """Information for clients: MONAI Label's fields, the version, and the scale along each axis."""
        return {**super().info(), "version": self.version, "scale": self.scale}

    def pre_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The config's ``preprocessing``."""
        return self.parser.get_parsed_content("preprocessing").transforms

    def inferer(self, data: Any = None) -> Inferer:
        """The config's ``inferer``."""
        return self.parser.get_parsed_content("inferer")

    def post_transforms(self, data: Any = None) -> Sequence[Callable]:
        """The config's ``postprocessing``."""
        return self.parser.get_parsed_content("postprocessing").transforms

    def __call__(self, request: Mapping[str, Any], callbacks: Any = None) -> tuple[str, dict[str, Any]]:
        """Super-resolve one image.

        Args:
            request: with the paths "image" and, for a guided model, "guide"; optionally options and "device".
            callbacks: as for MONAI Label's task.

        Returns:
            The path of a NIfTI file, which the caller removes, and the version, scale and options.

        Raises:
            ValueError: if an option has a wrong value, or the case fails; the message says why.
        """
        overrides = self._read_overrides(request)
        # basic_infer.py:272 hands all of a request to the transforms, which would read and write other files.
        entry = {key: request[key] for key in ("image", "guide", "device") if key in request}
        if self.guided != ("guide" in entry):
            raise ValueError(
                "this model needs a guide, a second scan of the same person; add the id of an image to the params of "
                'the request: {"guide": "<id>"}.'
                if self.guided
                else "this model takes no guide; leave it out of the params of the request."
            )
        try:
            # Not safe for threads, but MONAI Label's server takes one request at a time.
            if overrides != self.overrides:
                self._load_evaluator(overrides)
            return super().__call__(entry, callbacks)
        except Exception as error:
            raise ValueError(_find_root_cause(error)) from error
        finally:
            shutil.rmtree(self.results, ignore_errors=True)
            _free_memory()

    def run_inferer(self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cuda") -> dict[str, Any]:
        """Run the inferer; basic_infer.py:513 leaves out the guide, and 464 copies the network."""
        images = [data[key][None].to(self.evaluator.state.device) for key in ("image", "guide") if key in data]
        with torch.no_grad():
            data["pred"] = self.inferer(data)(images[0], self.evaluator.network, *images[1:])[0]
        return data

    def writer(self, data: dict[str, Any], extension: Any = None, dtype: Any = None) -> tuple[str, dict[str, Any]]:
        """The file that the bundle has written; writer.py:214 would write another, without the scan's header."""
        saved = Path(data["saved_to"])
        path = self.results.parent / f"{uuid.uuid4().hex}_{saved.name}"
        saved.rename(path)
        options = {key: self.overrides.get(key, value) for key, value in self.options.items()}
        return str(path), {"version": self.version, "scale": self.scale, "options": options}

    def _load_evaluator(self, overrides: Mapping[str, Any]) -> None:
        """Build the config with these overrides, with code from this bundle's folder only."""
        overlay = self.folder / "models" / "model.json"
        has_weights = ConfigParser.load_config_file(str(overlay)) if overlay.is_file() else {}
        parser = ConfigParser()
        parser.read_config([str(self.folder / "configs" / "inference.json"), *([str(overlay)] if has_weights else [])])
        self.guided = parser.get("guided", False)
        self.options = {
            key: value
            for key, value in parser.get().items()
            if (key not in {*has_weights, *_OF_FILES} if isinstance(value, bool) else key.endswith("_axis"))
        }
        # The overlay holds the path where the weights were trained.
        weights = {"checkpoint": str(self.folder / "models" / "model.pt")} if has_weights else {}
        weights |= {"bundle_root": str(self.folder), "output_dir": str(self.results), "dataset#data": []}
        parser.update({**weights, **overrides})
        # Packages of two bundles can have one name, such as two trainings of one version.
        packages = {path.parent.name for path in self.folder.glob("*/__init__.py")}
        for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
            del sys.modules[name]
        sys.path.insert(0, str(self.folder))
        try:
            parser.get_parsed_content("initialize")
            self.scale = list(parser.get_parsed_content("degradation").factors)
            self.evaluator = parser.get_parsed_content("evaluator")
        finally:
            sys.path.remove(str(self.folder))
        self.parser, self.overrides = parser, dict(overrides)

    def _read_overrides(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The checked options of a request that differ from the config; MONAI would evaluate text with a $."""
        overrides = {}
        for key, default in self.options.items():
            value = request.get(key, default)
            if isinstance(default, bool):
                if str(value).lower() not in ("true", "false"):
                    raise ValueError(f"{key} is {value!r}, expected True or False.")
                value = str(value).lower() == "true"
            elif not re.fullmatch("[A-Za-z]+", str(value)):
                raise ValueError(f"{key} is {value!r}, expected a name.")
            if value != default:
                overrides[key] = value
        if request.get("device"):
            overrides["device"] = torch.device(name_to_device(request["device"]))
        return overrides


class SuperResolutionApp(MONAILabelApp):
    """Serve every exported bundle in the folder ``--conf bundles``, as a model with its folder's name.

    Args:
        app_dir: folder of this file.
        studies: folder of images, or address of a DICOMweb server.
        conf: with the key "bundles".
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        # This server has its own folder of uploads and results, so it accepts no other temporary files.
        tempfile.tempdir = tempfile.mkdtemp(prefix="monailabel-")
        atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
        super().__init__(app_dir, studies, conf, name="MRI super-resolution", description="Super-resolution of MRI")

    def init_infers(self) -> dict[str, InferTask]:
        """Load the models by name; if a bundle does not load, the reason is logged."""
        if "bundles" not in self.conf:
            raise FileNotFoundError("no folder of exported bundles; start the server with --conf bundles FOLDER.")
        root = Path(self.conf["bundles"])
        if not root.is_dir():
            raise FileNotFoundError(f"--conf bundles {root}: there is no such folder.")
        tasks = {}
        for folder in sorted(path.parent for path in root.glob("*/configs")):
            try:
                tasks[folder.name] = SuperResolutionTask(folder, Path(tempfile.gettempdir()) / folder.name)
            except Exception as error:
                logger.error("%s is not served: %s", folder, _find_root_cause(error))
            else:
                logger.info("%s is served, version %s", folder, tasks[folder.name].version)
        if not tasks:
            raise FileNotFoundError(
                f"--conf bundles {root}: no bundle in it loads; expected folders with configs/inference.json, "
                "configs/metadata.json and models/model.pt, as written by `python -m common export`."
            )
        return tasks

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Super-resolve one image; app.py:286 would read any file of this machine.

        Args:
            request: with "model" and "image", an id of the datastore or the path of an upload; see
                :class:`SuperResolutionTask` for the rest.
            datastore: default the app's own.

        Returns:
            MONAI Label's dictionary, with "file", the path of the result, and "params", its version, scale and options.

        Raises:
            HTTPException: with the reason: 404 for a missing model or image, 422 for a failed case, 500 for other
                errors.
        """
        datastore = datastore or self.datastore()
        named = {key: str(request[key]) for key in ("image", "guide") if key in request}
        paths: dict[str, str] = {}
        try:
            if request["model"] not in self._infers:
                raise HTTPException(404, f"there is no model '{request['model']}'; expected {', '.join(self._infers)}.")
            if str(request.get("save_label", False)).lower() == "true":
                raise ValueError(
                    "results are no labels and are not saved on the server; leave out save_label. For many images at "
                    "once run the bundle itself, with `python -m monai.bundle run`."
                )
            for key, name in named.items():
                paths[key] = self._find_image(name, datastore)
            return super().infer({**request, **paths}, datastore)
        except Exception as error:
            for key in ("image", "label"):
                if _is_inside(request.get(key), tempfile.gettempdir()):  # on success MONAI Label removes it
                    remove_file(request[key])
            if isinstance(error, HTTPException):
                raise
            reason = _find_root_cause(error)
            for key, path in paths.items():
                reason = reason.replace(path, "the upload" if path == named[key] else named[key])
            logger.error("%s of %s failed: %s", request["model"], named, reason, exc_info=True)
            raise HTTPException(422 if isinstance(error, ValueError) else 500, reason) from None

    def _find_image(self, name: str, datastore: Any) -> str:
        """The path of an image. Other files of this machine are refused, because clients must not read them."""
        uploads = [tempfile.gettempdir(), *([self._sessions.store_path] if self._sessions else [])]
        uploaded = any(_is_inside(name, folder) for folder in uploads)
        try:
            path = name if uploaded else datastore.get_image_uri(name)
        except Exception as error:
            raise HTTPException(404, f"the server of the studies gives no image '{name}' ({error!r}).") from None
        if not os.path.exists(path):
            raise HTTPException(404, f"there is no image '{name}'; GET /datastore/?output=all lists them.")
        if os.path.isdir(path):
            raise ValueError(f"{path}: a folder; expected one NIfTI file. Convert a DICOM series with dcm2niix.")
        return path

    def _download_dcmqi_tools(self) -> None:
        """Do not download tools for DICOM segmentations, as MONAI Label does: this app makes none."""
