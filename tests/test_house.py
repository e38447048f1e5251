"""What is imported from where: the library never from the apps, which stand on it."""

import ast
from pathlib import Path

COMMON = Path(__file__).parents[1] / "common"


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


def test_nothing_outside_the_apps_imports_them():
    library = [path for path in COMMON.rglob("*.py") if "apps" not in path.relative_to(COMMON).parts]
    found = {str(path): imported(path) for path in library}
    assert "common.runtime.distributed.say" in found[str(COMMON / "io" / "dicom.py")]
    assert not [path for path, names in found.items() if any(f"{n}.".startswith("common.apps.") for n in names)]


def test_the_deploy_app_imports_nothing_that_its_environment_lacks():
    """Of common only the folder that reads and writes DICOM, which imports nothing else of common."""
    series = COMMON / "io" / "dicom_series"
    names = set().union(*map(imported, [*(COMMON / "apps" / "deploy").rglob("*.py"), *series.rglob("*.py")]))
    ours = {name for name in names if name.split(".")[0] == "common"}
    assert ours and all(name.startswith("common.io.dicom_series.") for name in ours)
