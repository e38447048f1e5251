"""Python commands in processes of their own, which begin at once: a server that has imported MONAI forks them.

It imports nothing of the project, so that a command finds ``common`` as it does from a shell. What a missing import
of MONAI, torch or matplotlib would break, it cannot show.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

# Each command imports these in seconds, and all of them take longer together than most commands.
PRELOADED = [
    "monai.bundle", "monai.engines", "monai.handlers", "monai.inferers", "monai.networks", "monai.transforms",
    "matplotlib.pyplot", "nibabel", "scipy.ndimage", "skimage.metrics", "torch.utils.tensorboard",
]  # fmt: skip


def start(words: Sequence[str], folder: Path, out: Path, err: Path) -> multiprocessing.Process:
    """Start ``python -m words`` in a folder, as from a shell, with one thread; what it prints is added to files."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_run, args=([*map(str, words)], str(folder), str(out), str(err)))
    process.start()
    return process


def command(words: Sequence[str], folder: Path, scratch: Path) -> subprocess.CompletedProcess:
    """What ``python -m words`` gives in a folder; ``scratch`` is a folder for what it prints."""
    scratch.mkdir(parents=True, exist_ok=True)
    out, err = (scratch / f"{name}.txt" for name in ("stdout", "stderr"))
    out.unlink(missing_ok=True)
    err.unlink(missing_ok=True)
    process = start(words, folder, out, err)
    process.join(300)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{' '.join(map(str, words))}: not done after 300 s\n{err.read_text()}")
    return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _run(words: list[str], folder: str, out: str, err: str) -> None:
    """The command, in its process."""
    import torch

    _write_to(out, sys.stdout)
    _write_to(err, sys.stderr)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of processes that it starts
    started_from = {"", os.getcwd(), str(Path(__file__).parents[1])}
    sys.path[:] = [folder, *(path for path in sys.path if path not in started_from)]
    os.chdir(folder)
    sys.argv = words
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except (Exception, KeyboardInterrupt) as error:
        sys.excepthook(*sys.exc_info())  # which multiprocessing does not call, and the project replaces
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
    finally:
        atexit._run_exitfuncs()


def _write_to(path: str, stream: IO) -> None:
    """Let a stream, and what child processes print there, be added to a file."""
    with open(path, "a") as file:
        os.dup2(file.fileno(), stream.fileno())
