"""The queue of what ten minutes with a GPU are for: ``python -m tests.benchmarks.gpu_session``, see README.md.

Only the standard library is imported: all else is installed by the first step.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import wheels
from .session import Session

STEPS = "tests.benchmarks.gpu_session.steps"
MINUTES = 9.5  # in one command of at most ten
# The minutes in which these end at the latest; what one leaves is the next one's.
EQUALITY, SPEED, TRAINING, EVALUATION = 2.5, 5.5, 8.0, 9.0
PLAN = {
    EQUALITY: "equality: each bundle that trains, tiny, captured against not, resumed, and against the CPU; heads",
    SPEED: "speed: udean, ct_guided, guided_rdn and downsampling_gan at the sizes of train.json, captured and not",
    TRAINING: "training: UDEAN as published on simulated heads, captured if it was equal",
    EVALUATION: "evaluation: these weights and those that ship, on a head that was held out",
    MINUTES: "table",
}
TIMED = ("udean", "udean_window", "ct_guided", "guided_rdn", "downsampling_gan")


class Queue:
    """The steps, in their order; what fails or is late leaves the others."""

    def __init__(self, session: Session, output: Path, scratch: Path) -> None:
        self.session, self.output, self.scratch, self._lock = session, output, scratch, threading.Lock()

    def run(self) -> None:
        heads, cores = self.scratch / "heads", os.cpu_count() or 1
        pip = ("pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir")
        self.step("wheels", EQUALITY, *pip, "--target", self.scratch / "site", *sorted(wheels.WHEELS.glob("*.whl")))
        bundles = {path.parts[-3] for path in wheels.ROOT.glob("bundles/*/configs/train.json")}
        with ThreadPoolExecutor(1 + max(1, cores // 2)) as pool:
            pool.submit(self.step, "heads", EQUALITY, STEPS, "heads", heads, cores // 2, OMP_NUM_THREADS="1")
            for bundle in sorted(bundles, key=lambda name: (name not in TIMED, name)):  # those that take longest first
                pool.submit(self.measure, bundle, "equality", EQUALITY, "--tiny", True, OMP_NUM_THREADS="1")
        for bundle in TIMED:
            self.measure(bundle, "speed", SPEED)
        trained, figures = self.scratch / "trained", self.output / "gpu.json"
        seconds = f"{self.session.left(TRAINING / MINUTES) - 30:.0f}"
        self.step("training", TRAINING, STEPS, "train", heads, trained, figures, seconds)
        for name in ("models/model.pt", "models/model.json", "history.jsonl"):
            if (trained / name).is_file():
                shutil.copy(trained / name, self.output)
        with ThreadPoolExecutor() as pool:
            pool.submit(self.evaluate, "as published", "udean", ["train", "paper"], trained / "models", heads)
            shipped = Path("bundles/udean_window/models")
            pool.submit(self.evaluate, "shipped", "udean_window", ["train"], shipped, heads)
        self.step("table", MINUTES, STEPS, "table", self.output, *sorted(self.scratch.glob("evaluated_*")))

    def step(self, name: str, end: float, *words: object, **environment: str) -> None:
        self.session.step(name, *words, until=end / MINUTES, **environment)

    def measure(self, bundle: str, what: str, end: float, *options: object, **environment: str) -> None:
        """Measure a bundle, and write gpu.json anew: {"equality": {"machine", "parts"}, "speed": the same}."""
        folder = self.scratch / what
        folder.mkdir(exist_ok=True)
        words = ("tests.benchmarks.gpu", "--bundle", bundle, "--only", what, "--output", folder / f"{bundle}.json")
        self.step(f"{what} of {bundle}", end, *words, *options, **environment)
        with self._lock:
            found = {}
            for path in sorted([*self.scratch.glob("equality/*.json"), *self.scratch.glob("speed/*.json")]):
                record = json.loads(path.read_text())
                found.setdefault(path.parent.name, {**record, "parts": []})["parts"] += record["parts"]
            (self.output / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")

    def evaluate(self, method: str, bundle: str, names: list[str], models: Path, heads: Path) -> None:
        files = [f"bundles/{bundle}/configs/{name}.json" for name in (*names, "evaluate")] + [f"{models}/model.json"]
        folder = self.scratch / f"evaluated_{bundle}"
        options = {"config_file": files, "dataset_dir": heads, "output_dir": folder, "method": method}
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        self.step(f"evaluation of {method}", EVALUATION, "monai.bundle", "run", *words)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_session", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the whole queue; default %(default)s")
    parser.add_argument("--output", type=Path, default=os.environ.get("OUT"), help="folder for results; default $OUT")
    parser.add_argument("--fetch", action="store_true", help="download the wheels, and no more")
    parser.add_argument("--dry-run", action="store_true", help="print the steps and what travels, and no more")
    options = parser.parse_args()
    if options.fetch:
        wheels.fetch()
    if options.fetch or options.dry_run:
        for end, step in PLAN.items():
            print(f"until {end / MINUTES * options.minutes:4.1f} min  {step}")
        wheels.report()
        return 0
    if options.output is None:
        parser.error("give --output, or set $OUT")
    output = options.output.absolute()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(wheels.ROOT)
        session = Session(output, options.minutes, PYTHONPATH=f"{scratch}/site", OMP_WAIT_POLICY="passive")
        Queue(session, output, Path(scratch)).run()
    for path in sorted(output.iterdir()):
        session.say(f"{path.stat().st_size / 2**20:6.2f} MiB {path.name}")
    if (output / "table.md").is_file():
        print((output / "table.md").read_text())
    session.say(f"FAILED: {', '.join(session.failed)}" if session.failed else "all steps passed")
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
