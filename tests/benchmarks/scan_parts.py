"""A command of ``python -m common`` with figures of its parts: ``python scan_parts.py FIGURES INPUT COMMAND ...``.

It is run by its path in the folder of any revision, of which it knows only how MONAI calls inferers. FIGURES is the
JSON that it writes at the end, INPUT what the outermost inferer was given, so that another can do the same work.
"""

import functools
import json
import resource
import runpy
import sys
import threading
import time
from collections import Counter
from pathlib import Path

_PARTS = {"AdaptedInferer": "fine-tuning", "ConsistentInferer": "agreement", "CheckedInferer": "agreement"}


class Parts:
    """Seconds of the inferers that work on a network's results or weights, and of all others: those are its calls."""

    def __init__(self, given: Path) -> None:
        self.given, self.seconds, self.within, self.since = given, Counter(), [], 0.0
        self.work: list[tuple[str, int]] = []  # precision and multiply-adds of each layer's call

    def switch(self, part: str | None) -> None:
        """Begin a part within the present one, or with None end it."""
        now = time.perf_counter()
        if self.within:
            self.seconds[self.within[-1]] += now - self.since
        self.since = now
        self.within.append(part) if part else self.within.pop()

    def measure(self, inferer: type) -> None:
        """Time the calls of an inferer's class in the main thread; what it starts in others is within them."""
        call = inferer.__dict__.get("__call__")
        if call is None or not inferer.__module__.startswith("common."):
            return

        @functools.wraps(call)
        def measured(own, inputs, network, *args, **kwargs):
            if threading.current_thread() is not threading.main_thread():
                return call(own, inputs, network, *args, **kwargs)
            if not self.within and not self.given.exists():
                import torch

                torch.save([torch.as_tensor(each).as_subclass(torch.Tensor) for each in (inputs, *args)], self.given)
            self.switch(_PARTS.get(inferer.__name__, "network"))
            try:
                return call(own, inputs, network, *args, **kwargs)
            finally:
                self.switch(None)

        inferer.__call__ = measured

    def count(self, layer, _, output) -> None:
        """Count a layer's multiply-adds, in any thread; a hook of all modules."""
        if self.within and self.within[-1] == "network" and type(layer).__name__ in ("Conv2d", "Conv3d", "Linear"):
            self.work.append((str(output.dtype).removeprefix("torch."), output.numel() * layer.weight[0].numel()))

    def figures(self) -> dict[str, object]:
        """Seconds of the parts, multiply-adds, the precision of most of them, and peak memory in GiB."""
        work = Counter()
        for precision, operations in self.work:
            work[precision] += operations
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {**self.seconds, "work": work.total(), "precision": max(work, key=work.get, default=None), "gib": peak}


def main(figures: str, given: str, *command: str) -> None:
    sys.path[0] = ""  # this process's folder, not this file's
    from common.startup import import_monai

    import_monai()  # as super-resolve begins
    from monai.inferers import Inferer
    from torch.nn.modules.module import register_module_forward_hook

    parts = Parts(Path(given))
    Inferer.__init_subclass__ = classmethod(lambda inferer: parts.measure(inferer))
    register_module_forward_hook(parts.count)
    sys.argv = ["common", *command]
    try:
        runpy.run_module("common", run_name="__main__")
    finally:
        Path(figures).write_text(json.dumps(parts.figures()))


if __name__ == "__main__":
    main(*sys.argv[1:])
