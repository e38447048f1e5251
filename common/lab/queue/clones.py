"""Files of git clones that lie as CLONES/OWNER+NAME/repo, with or without a work tree."""

import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def check_clones(clones: Path, names: Iterable[str]) -> None:
    """Raise FileNotFoundError if ``clones`` lacks one of the clones OWNER+NAME."""
    if missing := sorted({name for name in names if not (clones / name / "repo").is_dir()}):
        raise FileNotFoundError(
            f"--clones {clones}: no folder {', '.join(f'{name}/repo' for name in missing)}; "
            "clone https://github.com/OWNER/NAME into OWNER+NAME/repo."
        )


@contextmanager
def extract_files(clones: Path, name: str, path: str, commit: str = "HEAD") -> Iterator[Path]:
    """Give a file of a clone, with its sidecar, or a folder; what was extracted is removed again.

    Args:
        clones: the folder of the clones.
        name: the clone, OWNER+NAME.
        path: the file or folder in it.
        commit: the commit; its digest vouches for the content.

    Raises:
        FileNotFoundError: if the clone lacks the commit or the file.
    """
    folder, _, file = path.rpartition("/")
    sidecar = f"{file.removesuffix('.nii.gz')}.json"
    tree = f"{commit}:{folder}"  # of this folder alone: a clone may lack large files of others
    git = ["git", "-C", str(clones / name / "repo")]
    known = subprocess.run([*git, "cat-file", "-e", f"{commit}:{folder}/{sidecar}"], stderr=subprocess.DEVNULL)
    files = [file, *([] if known.returncode else [sidecar])]
    archive = subprocess.run([*git, "archive", tree, *files], capture_output=True)
    if archive.returncode:
        raise FileNotFoundError(f"{name}/repo lacks {path} at {commit[:8]}; fetch that commit with its files.")
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["tar", "-x", "-C", place], check=True, input=archive.stdout)
        yield Path(place) / file
