"""The modules of this package that a bundle needs, and their copy under the bundle's own package name."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NAME = ROOT.name

_DOTTED = re.compile(rf"\b{NAME}((?:\.[A-Za-z_]\w*)+)")
_FROM = re.compile(rf"\bfrom\s+{NAME}((?:\.\w+)*)\s+import\s+([\w, ]+)")
_REFERENCE = re.compile(rf"(:\w+:`~?){NAME}(?=\.)")
_WIDTH = 120  # characters of a line of code
_IMPORT = re.compile(r"^\$(?:import|from)\s+([A-Za-z_]\w*)|^([A-Za-z_]\w*)\.")


def list_strings(value: Any) -> Iterator[str]:
    """Every string in nested lists and dictionaries, without the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from list_strings(item)


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Change every string in nested lists and dictionaries, keys too."""
    if isinstance(value, dict):
        return {change(key): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [map_strings(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def find_needed_modules(configs: Iterable[str]) -> list[Path]:
    """Find the files of this package that configs need, with the imports of these files from the package.

    Imports within ``try`` are left out: modules work without them, or report what is missing.
    A package's names are followed to the modules that define them.

    Args:
        configs: every string value of the configs.

    Returns:
        Paths relative to the package, sorted, without the ``__init__.py`` of the packages on the way.

    Raises:
        ValueError: if a config names something that does not exist.
    """
    wanted: list[tuple[str, ...]] = []
    for text in configs:
        imports = _FROM.findall(text)
        for module, names in imports:
            wanted += [(*module.split(".")[1:], name.split()[0]) for name in names.split(",")]
        wanted += [tuple(dotted.split(".")[1:]) for dotted in _DOTTED.findall("" if imports else text)]
    pending = [_find_module(name) for name in wanted]
    modules: set[Path] = set()
    while pending:
        path = pending.pop()
        if path in modules:
            continue
        modules.add(path)
        pending += [_find_module(name) for name in _list_imports(path)]
    return sorted(modules)


def copy_modules(modules: Iterable[Path], folder: Path, name: str) -> None:
    """Copy modules as a package with another name, with the ``__init__.py`` files above them cut to these modules.

    Files next to a module with its name and another ending, for example templates, are copied too.

    Args:
        modules: from :func:`find_needed_modules`.
        folder: parent of the new package.
        name: of the new package; it replaces this package's name in messages too. References in docstrings lose it,
            because lines must not become longer.
    """
    modules = list(modules)
    packages = {parent for path in modules for parent in path.parents}
    for path in modules:
        target = folder / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        source = _REFERENCE.sub(r"\1", (ROOT / path).read_text(encoding="utf-8"))
        target.write_text(rename_package(source, name), encoding="utf-8")
        for file in {*(ROOT / path).parent.glob(f"{path.stem}.*")} - {ROOT / path}:
            shutil.copyfile(file, target.with_name(file.name))
    for package in packages:
        source = rename_package(_cut_package(package, set(modules)), name)
        (folder / name / package / "__init__.py").write_text(source, encoding="utf-8")


def rename_package(text: str, name: str) -> str:
    """Replace this package's name in the dotted names of a text; commands become those of an installation."""
    inside = "|".join(sorted(p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()))
    text = re.sub(rf"python -m {NAME}\b", "mri-sr", text)
    return re.sub(rf"(?<![\w.]){NAME}(?=[./](?:{inside})\b)", name, text)


def format_code(value: Any, indent: str = "", before: str = "", after: str = "") -> str:
    """Python code of nested lists and dictionaries, as black formats it in lines of 120 characters.

    Args:
        value: of the code.
        indent: of its first line.
        before: it on the first line, for example a name and " = ".
        after: it on the last line.
    """
    line = indent + before + _write(value) + after
    if len(line) <= _WIDTH or not isinstance(value, (list, dict)):
        return line
    pairs = (
        [(f"{_write(k)}: ", item) for k, item in value.items()] if isinstance(value, dict) else [("", v) for v in value]
    )
    comma, inner = "," if len(pairs) > 1 else "", indent + "    "
    lines = [format_code(item, inner, key, comma) for key, item in pairs]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([indent + before + start, *lines, indent + end + after])


def _write(value: Any) -> str:
    """Python code on one line, with double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_write(key)}: {_write(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_write, value))}]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def find_distributions(configs: Iterable[str], modules: Iterable[Path]) -> tuple[dict[str, str], dict[str, str]]:
    """Packages that configs and modules import: names for pip, and a place of the import of each.

    Returns:
        Those that are needed, and those that are imported within ``try`` only: modules work without them, or report
        what is missing.
    """
    imported: dict[bool, dict[Any, str]] = {False: {}, True: {}}
    modules = {*modules}
    modules |= {folder / "__init__.py" for module in modules for folder in module.parents}
    for path in sorted(modules):
        for node, tried in _read_imports(path):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module] if node.module and not node.level else []
            imported[tried] |= {name.split(".")[0]: path.as_posix() for name in names}
    known = packages_distributions()
    for text in configs:
        match = _IMPORT.match(text)
        root = match and (match[1] or match[2])
        # Other strings have dots too, so only installed packages count.
        if root in known:
            imported[False].setdefault(root, "the configs")
    ours = {*sys.stdlib_module_names, NAME}
    needed, others = (
        {known.get(name, [name])[0]: where for name, where in imported[within].items() if name not in ours}
        for within in (False, True)
    )
    return needed, {name: where for name, where in others.items() if name not in needed}


@cache
def _read_imports(path: Path) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """The imports of a module, and of each whether it is within ``try``."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    tried = {id(n) for t in ast.walk(tree) if isinstance(t, ast.Try) for line in t.body for n in ast.walk(line)}
    return [(n, id(n) in tried) for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]


def _list_imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The imports of a module from this package that it cannot do without, as names within the package."""
    for node, tried in _read_imports(path):
        if isinstance(node, ast.ImportFrom) and node.level and not tried:
            package = path.parts[: len(path.parts) - node.level]
            for alias in node.names:
                yield (*package, *(node.module.split(".") if node.module else ()), alias.name)


def _find_module(name: tuple[str, ...]) -> Path:
    """The file that defines a name, for example ("networks", "SlabEncoder")."""
    for i, part in enumerate(name):
        package = Path(*name[:i])
        if (ROOT / package / f"{part}.py").is_file():
            return package / f"{part}.py"
        if not (ROOT / package / part / "__init__.py").is_file():
            for module, names in _read_names(package).items():
                if part in names:
                    return _find_module((*package.parts, *module.split(".")))
            raise ValueError(f"{'.'.join((NAME, *name))} does not exist: {ROOT / package} has no '{part}'.")
    return Path(*name, "__init__.py")


def _read_names(package: Path) -> dict[str, list[str]]:
    """The names that a package's ``__init__.py`` offers, by the module that defines them."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    tables = [ast.literal_eval(node) for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    return tables[0] if tables else {}


def _cut_package(package: Path, modules: set[Path]) -> str:
    """The source of a package's ``__init__.py`` without the modules that are not copied."""
    source, names = (ROOT / package / "__init__.py").read_text(encoding="utf-8"), _read_names(package)
    if not names:
        return source
    kept = {name: names[name] for name in names if package.joinpath(*name.split(".")).with_suffix(".py") in modules}
    return (
        f'"""{ast.get_docstring(ast.parse(source))}"""\n\nimport lazy_loader\n\n'
        f"{format_code(kept, before='_NAMES = ')}\n"
        "__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=_NAMES)\n"
    )
