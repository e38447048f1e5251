"""``python -m common export``: write a bundle as one folder and one zip that need nothing else of this repository."""

from __future__ import annotations

import copy
import json
import re
import shutil
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import yaml
from monai.apps.utils import check_hash
from monai.bundle import ConfigParser
from monai.bundle.config_parser import merge_kv

from ...io.files import format_config, load_state
from ...io.writing import check_writable, open_part_folder
from ...weights.loading import explain_no_overlay, read_overlay
from ..export import archive, check, modules
from ..export.readme import PINNED, write_pages
from ..export.unit_tests import write_unit_test

ROOT = modules.ROOT.parent
LARGE = 25 * 10**6  # bytes: the largest file that the model zoo accepts
# MONAI puts a bundle's folder on the path after "initialize", and never for monai.bundle.load. Only MONAI's workflow
# knows where the config lies; for other programs it is the working directory.
IMPORTS = ["$import inspect", "$import sys"]
BUNDLE_ROOT = (
    "$next((str(f.frame.f_locals['self'].config_root_path.parent) for f in inspect.stack(0) "
    "if isinstance(f.frame.f_locals.get('self'), monai.bundle.ConfigWorkflow)), '.')"
)
ON_PATH = "$sys.path.insert(1, @bundle_root)"
COLLECTION = ("demo", "large", "release", "tables", "train_supervised", "trial")  # configs for what is not exported
OF_MONAI = ("fire", "pytorch-ignite", "tensorboard")  # imported by MONAI, for its commands and handlers


def export(bundle: str, output_dir: str = "dist", checkpoint: str | None = None) -> None:
    """Write a bundle as a folder and a zip with all that it needs, and print the zip's SHA-256.

    ``<output_dir>/<name>/`` has the configs, which find their folder; models/model.pt with its overlay model.json,
    whose values are also in inference.json and train.json; the docs and the licence. It also has the modules of this
    package that the configs need. Their package is named by the bundle and its version (``udean_v1_2_0``), so that two
    bundles or versions in one process never share a module.
    ``<output_dir>/<name>_v<version>.zip`` has that folder; the same input gives the same bytes.
    ``<output_dir>/ci/unit_tests/test_<name>.py`` is a test in the form of MONAI's model zoo.

    A bundle whose inference.json has no key "checkpoint" has no weights.

    docs/README.md has the sections of the zoo's template, made from the bundle's own pages and metadata.json.

    Further weights of the bundle, models/model_*.pt, are exported with their overlays. With a ``checkpoint`` they are
    left out, as are the metadata's eval_metrics and data_source, because they are not of that training.

    Args:
        bundle: folder of the bundle, for example bundles/udean_window.
        output_dir: for the folder and the zip; an earlier export of the same bundle there is replaced.
        checkpoint: file of the weights, with their overlay; default models/model.pt of the bundle.

    Raises:
        FileNotFoundError: when there is no such bundle.
        ValueError: with every reason why the bundle cannot be exported, in its weights, configs, metadata or files.
        PermissionError, NotADirectoryError: when output_dir cannot be written to.
    """
    source = Path(bundle)
    if not (source / "configs").is_dir():
        raise FileNotFoundError(f"{source}: there is no configs folder; --bundle names the folder of a bundle.")
    name, output = source.resolve().name, Path(output_dir)
    weights = Path(checkpoint) if checkpoint else source / "models" / "model.pt"
    target = output / name
    if target.exists() and not (target / "configs" / "metadata.json").is_file():
        raise ValueError(f"{target} exists and is no exported bundle; remove it, or name another --output_dir.")
    check_writable(output_dir)
    has_weights = checkpoint is not None or _has_weights(source)
    overlays, problems = _read_overlays(weights, only_weights=bool(checkpoint)) if has_weights else ({}, [])
    configs, unreadable = _read_configs(source, overlays.get("model", {}))
    problems += unreadable + _find_problems(source, configs)
    meta = configs.get("metadata", {})
    version = str(meta.get("version", ""))
    package = f"{name}_v{re.sub(r'[^0-9A-Za-z]', '_', version)}"
    needed: list[Path] = []
    configs = {config: content for config, content in configs.items() if config not in COLLECTION}
    try:
        needed = modules.find_needed_modules(modules.list_strings(configs))
    except ValueError as error:
        problems.append(f"{source / 'configs'}: {error}")
    listed = meta.get("required_packages_version", {})
    imported, tried = modules.find_distributions(modules.list_strings(configs), needed)
    known = {distribution.lower() for distribution in (*PINNED, *listed)}
    problems += [
        f"metadata.json does not list {distribution} in required_packages_version; {where} needs it."
        for distribution, where in sorted(imported.items())
        if distribution.lower() not in known
    ]
    _refuse(source, problems)
    used = {distribution.lower() for distribution in (*imported, *tried, *OF_MONAI)}
    meta["required_packages_version"] = {name: v for name, v in listed.items() if name.lower() in used}
    if checkpoint:
        meta.pop("eval_metrics", None)
        meta.pop("data_source", None)
    meta["authors"] = _find_authors() or meta["authors"]
    with open_part_folder(output) as temporary:
        folder = temporary / name
        _copy_files(source, folder, configs, package)
        modules.copy_modules(needed, folder, package)
        write_pages(folder / "docs", package, meta, configs, overlays)
        for stem, overlay in overlays.items():
            shutil.copyfile(weights.with_stem(stem) if stem != "model" else weights, folder / "models" / f"{stem}.pt")
            (folder / "models" / f"{stem}.json").write_text(format_config(overlay) + "\n")
        _check_large_files(source, folder)
        try:
            if has_weights:
                check.check_network(folder)
        except ValueError as error:
            _refuse(source, [str(error)])
        zipped = output / f"{name}_v{version}.zip"
        digest = archive.write_zip(folder, zipped)
        if target.exists():
            shutil.rmtree(target)
        folder.replace(target)
        write_unit_test(configs, output / "ci" / "unit_tests" / f"test_{name}.py", name)
    print(f"{target}\n{zipped}: SHA-256 {digest}")
    if checkpoint:
        print(f"{target / 'docs'}: its pages and data_license.txt are of the bundle's own weights; say what yours are.")


def _find_authors() -> str | None:
    """The authors of pyproject.toml, as the installed package has them; None without."""
    try:
        known: Any = metadata("mri-sr-bundles")
    except PackageNotFoundError:
        return None
    return known.get("Author") or known.get("Author-email")


def _refuse(source: Path, problems: list[str]) -> None:
    """Raise an error that lists all reasons, if there are any."""
    if problems:
        raise ValueError("\n  ".join([f"{source} cannot be exported:", *problems])) from None


def _has_weights(source: Path) -> bool:
    """Whether a bundle's inference.json names weights; also true if it cannot be read, which is said later."""
    try:
        return "checkpoint" in json.loads((source / "configs" / "inference.json").read_text())
    except (ValueError, OSError):
        return True


def _read_overlays(weights: Path, only_weights: bool) -> tuple[dict[str, dict], list[str]]:
    """Return overlays of weights by their new names, and what is wrong. ``only_weights`` leaves out the folder's
    others."""
    files = {} if only_weights else {path.stem: path for path in sorted(weights.parent.glob("model_*.json"))}
    overlays: dict[str, dict] = {}
    problems = []
    for stem, path in {"model": weights, **files}.items():
        path = path.with_suffix(".pt")
        try:
            load_state(path, "cpu")
            overlay = read_overlay(path)
        except FileNotFoundError:
            problems.append(f"there are no weights at {path}; train the bundle first, or give --checkpoint.")
        except ValueError as error:
            problems.append(str(error))
        else:
            if overlay is None:
                problems.append(f"{path}: {explain_no_overlay(path)}")
            else:
                overlays[stem] = {**overlay, "checkpoint": f"$@bundle_root + '/models/{stem}.pt'"}
    return overlays, problems


def _read_configs(source: Path, overlay: dict[str, Any]) -> tuple[dict[str, dict], list[str]]:
    """Return the configs by name, with an overlay's values in inference and train, and what is wrong with them."""
    configs: dict[str, dict] = {}
    problems = []
    for path in sorted((source / "configs").glob("*.json")):
        try:
            content = json.loads(path.read_text())
            if not isinstance(content, dict):
                raise ValueError("expected an object")
        except (ValueError, OSError) as error:
            problems.append(f"{path} does not parse: {error}.")
        else:
            configs[path.stem] = content
    # The weights that ship are compared with where the other bundles are.
    configs.get("evaluate", {}).get("evaluate", {}).get("evaluator", {}).pop("shipped", None)
    for name in ("inference", "train"):
        if name in configs:
            configs[name]["bundle_root"] = BUNDLE_ROOT
            configs[name]["imports"] = [*IMPORTS, *configs[name].get("imports", [])]
            first = configs[name].get("initialize", [])
            configs[name]["initialize"] = [ON_PATH, *(first if isinstance(first, list) else [first])]
            parser = ConfigParser(configs[name])
            for key, value in overlay.items():
                # What a component of train.json finds in the data, it finds in other data too.
                kept = name == "train" and isinstance(parser.get().get(key), dict)
                if not kept and (key in parser or ("#" in key and key.rpartition("#")[0] in parser)):
                    parser[key] = value
            configs[name] = parser.get()
    return configs, problems


def _find_problems(source: Path, configs: dict[str, dict]) -> list[str]:
    """Return what keeps a bundle from being exported, as far as is known without running it."""
    files = [source / "configs" / name for name in ("inference.json", "metadata.json", "logging.conf")]
    problems = [f"{file} is missing." for file in (*files, source / "docs" / "README.md") if not file.is_file()]
    if "metadata" in configs:
        meta = configs["metadata"]
        version, changes = str(meta.get("version", "")), meta.get("changelog", {})
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            problems.append(f"metadata.json: version is '{version}', expected three numbers such as 0.1.0.")
        elif version not in changes:
            problems.append(f"metadata.json: version {version} is not in changelog ({', '.join(changes) or 'empty'}).")
    base = "train" if (source / "configs" / "train.json").is_file() else "inference"
    for overlay in configs.keys() - {"metadata", "tables"}:
        # An overlay of train.json may also refer to keys of evaluate.json, which leaves train.json's keys unchanged.
        below = ["inference"] if overlay.startswith("inference") else [base, "evaluate"]
        names = [name for name in below if name != overlay and overlay != base]
        if all(name in configs for name in names):
            problems += _find_missing_references(source, [*names, overlay], configs)
    return problems


def _find_missing_references(source: Path, names: list[str], configs: dict[str, dict]) -> list[str]:
    """Return references to keys that no config has, when each config is laid over those before it."""
    parser = ConfigParser(config={})
    for name in names:
        for key, value in copy.deepcopy(configs[name]).items():
            merge_kv(parser, key, value)
    parser.parse()
    resolver = parser.ref_resolver
    where = source / "configs" / f"{names[-1]}.json"
    unknown = {
        (reference, item)
        for item, content in resolver.items.items()
        for reference in resolver.find_refs_in_config(config=content.get_config(), id=item)
        if reference not in resolver.items
    }
    return [f"{where} does not parse: '{item}' refers to @{ref}, which no config has." for ref, item in sorted(unknown)]


def _copy_files(source: Path, folder: Path, configs: dict[str, dict], package: str) -> None:
    """Configs, docs, licence and large_files.yml."""
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    for name, config in configs.items():
        (folder / "configs" / f"{name}.json").write_text(modules.rename_package(format_config(config) + "\n", package))
    shutil.copyfile(source / "configs" / "logging.conf", folder / "configs" / "logging.conf")
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    if (source / "large_files.yml").is_file():
        shutil.copyfile(source / "large_files.yml", folder / "large_files.yml")
    shutil.copytree(source / "docs", folder / "docs")


def _check_large_files(source: Path, folder: Path) -> None:
    """Refuse files over 25 MB that large_files.yml does not name, and files whose hash differs from its entry."""
    path, named = folder / "large_files.yml", {}
    try:
        entries = yaml.safe_load(path.read_text())["large_files"] if path.is_file() else []
        named = {entry["path"]: entry for entry in entries if entry["url"]}
    except (yaml.YAMLError, KeyError, TypeError) as error:
        _refuse(source, [f"large_files.yml: expected large_files, a list of entries with path and url ({error!r})."])
    problems = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, size = file.relative_to(folder).as_posix(), file.stat().st_size
        entry = named.get(name, {})
        if entry.get("hash_val"):  # the zoo's template has ""
            if not check_hash(file, entry["hash_val"], entry.get("hash_type") or "md5"):
                problems.append(
                    f"{name} does not have the hash_val that large_files.yml gives; publish it anew and correct it."
                )
        elif name not in named and size > LARGE:
            problems.append(
                f"{name} has {size / 1e6:.1f} MB, more than {LARGE / 1e6:.0f}; put it where it can "
                "be fetched from, and name it in large_files.yml next to configs, with path and url."
            )
    _refuse(source, problems)
