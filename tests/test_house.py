"""What is imported from where."""

import ast
import importlib
import json
import subprocess
import sys
from contextlib import suppress
from graphlib import TopologicalSorter
from pathlib import Path

from common.program.export.modules import _find_module, _list_imports, find_needed_modules, list_strings

COMMON = Path(__file__).parents[1] / "common"
# What each floor may not import. The program asks the laboratory in two commands.
ABOVE = {"library": {"program", "lab"}, "program": {"lab"}, "lab": set()}
ASKING = {COMMON / "program" / "commands" / "judge.py", COMMON / "program" / "commands" / "ablate.py"}


def imported(path: Path) -> set[str]:
    """All that a module of common imports, as dotted names."""
    package, names = ("common", *path.relative_to(COMMON).parts[:-1]), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def test_no_floor_imports_from_one_above():
    """Also within functions and for types only; ``__main__`` starts the program."""
    up = []
    for path in COMMON.rglob("*.py"):
        place = path.relative_to(COMMON)
        floor = place.parts[0] if place.parts[0] in ABOVE else "library"
        targets = {name.split(".")[1] for name in imported(path) if name.startswith("common.")}
        if path not in {*ASKING, COMMON / "__main__.py"}:
            up += [f"{place}: {target}" for target in targets & ABOVE[floor]]
    assert not up
    assert "common.runtime.distributed.print_once" in imported(COMMON / "program" / "dicom" / "search.py")


def test_a_name_is_imported_from_the_module_that_defines_it():
    """So mypy follows it: packages offer their names, for configs, only when one asks for them."""
    for path in COMMON.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                place = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                modules = [place] if node.module and place.with_suffix(".py").is_file() else []
                modules = modules or [place / alias.name for alias in node.names]
                assert all(each.is_dir() or each.with_suffix(".py").is_file() for each in modules), (path, node.lineno)


def test_each_name_that_a_package_offers_is_there():
    """Configs find it by the package, whatever module defines it."""
    for path in COMMON.rglob("__init__.py"):
        package = importlib.import_module(".".join(path.parent.relative_to(COMMON.parent).parts))
        assert all(getattr(package, name) is not None for name in getattr(package, "__all__", ()))


def test_modules_import_each_other_in_no_circle():
    """Also within functions; a package stands for the modules whose names are taken from it."""
    graph = {}
    for path in (path.relative_to(COMMON) for path in COMMON.rglob("*.py") if path.name != "__init__.py"):
        names = _list_imports(path)
        graph[path] = set()
        for name in names:
            with suppress(ValueError):  # what a package's __init__.py defines
                graph[path].add(_find_module(name))
    assert {*TopologicalSorter(graph).static_order()} >= graph.keys()  # a circle has no order


def test_windows_can_import_every_module_and_read_every_config():
    """Modules that it lacks are imported only within ``try``. MONAI reads configs in the encoding of the system."""
    missing, unguarded = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}, []
    for path in COMMON.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tried = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
        for node in ast.walk(tree):
            names = (
                [each.name for each in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
            )
            if missing & {*names} and id(node) not in tried:
                unguarded.append(f"{path}:{node.lineno}")
    assert not unguarded
    assert all(path.read_bytes().isascii() for path in COMMON.parent.glob("bundles/*/*/*.json"))


def test_the_deploy_app_imports_nothing_that_its_environment_lacks():
    """Of common only what reads and writes files, with pydicom, nibabel torch, and what words errors."""
    names = set().union(*map(imported, (COMMON / "program" / "apps" / "deploy").rglob("*.py")))
    ours = {name for name in names if name.split(".")[0] == "common"}
    able = "common.io.", "common.program.dicom.", "common.program.exams.people.", "common.runtime.errors."
    assert ours and all(name.startswith(able) for name in ours)


def test_inference_imports_what_its_config_reaches_and_no_more(tmp_path):
    """So ``.ci/sizes``, which measures what inference.json reaches, says what a run of it loads."""
    config = COMMON.parent / "bundles" / "udean_window" / "configs" / "inference.json"
    program = """if True:
        import sys
        from monai.bundle import ConfigWorkflow
        workflow = ConfigWorkflow(sys.argv[1], workflow_type="infer", logging_file=False)
        workflow.parser.update({"dataset#data": [], "output_dir": sys.argv[2], "device": "cpu"})
        workflow.initialize()
        workflow.run()
        files = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name[:7] == "common."]
        print(*[file for file in files if file and not file.endswith("__init__.py")], sep="\\n")
    """
    words = [sys.executable, "-c", program, str(config), str(tmp_path)]
    run = subprocess.run(words, cwd=COMMON.parent, check=True, capture_output=True, text=True)
    loaded = {Path(line).relative_to(COMMON) for line in run.stdout.splitlines() if line.startswith(str(COMMON))}
    reached = {*find_needed_modules(list_strings(json.loads(config.read_text())))}
    assert loaded <= reached and len(loaded) > len(reached) / 2
