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
EQUALITY, SPEED, TRAINING, EVALUATION = 2.5, 5.0, 8.2, 9.1
PLAN = {
    EQUALITY: "equality: each bundle that trains, tiny, resumed, and against the CPU; the cohort",
    SPEED: "speed: five bundles at the sizes of train.json, the trained one at those of large.json",
    TRAINING: "training: release.json with large.json",
    EVALUATION: "evaluation: these weights, those that ship and cubic, on what was held out",
    MINUTES: "table",
}
TRAINED = ("udean_window", "ct_guided")
TIMED = (*TRAINED, "udean", "guided_rdn", "downsampling_gan")


class Queue:
    """The steps, in their order; what fails or is late leaves the others."""

    def __init__(self, session: Session, output: Path, scratch: Path, trained: str) -> None:
        self.session, self.output, self.scratch, self.trained = session, output, scratch, trained
        self._lock = threading.Lock()

    def run(self) -> None:
        cores, cohort, figures = os.cpu_count() or 1, self.scratch / "cohort", self.output / "gpu.json"
        pip = ("pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir")
        self.step("wheels", EQUALITY, *pip, "--target", self.scratch / "site", *sorted(wheels.WHEELS.glob("*.whl")))
        bundles = {path.parts[-3] for path in wheels.ROOT.glob("bundles/*/configs/train.json")}
        with ThreadPoolExecutor(1 + max(1, cores // 2)) as pool:
            pool.submit(self.step, "cohort", SPEED, STEPS, "cohort", self.trained, cohort, cores, OMP_NUM_THREADS="1")
            for bundle in sorted(bundles, key=lambda name: (name not in TIMED, name)):  # those that take longest first
                pool.submit(self.measure, bundle, "equality", EQUALITY, "--tiny", True, OMP_NUM_THREADS="1")
        for bundle in sorted(TIMED, key=lambda name: name != self.trained):
            self.measure(bundle, "speed", SPEED, *(("--overlay", "large") if bundle == self.trained else ()))
        seconds, folder = f"{self.session.left(TRAINING / MINUTES) - 30:.0f}", self.scratch / "trained"
        self.step("training", TRAINING, STEPS, "train", self.trained, cohort / "data", folder, figures, seconds)
        self.keep(folder)
        self.step("evaluation", EVALUATION, "monai.bundle", "run", *self.list_evaluation(folder, cohort / "data"))
        self.step("table", MINUTES, STEPS, "table", self.output, self.scratch / "evaluated")

    def keep(self, trained: Path) -> None:
        """Copy what training left; the weights under the names that they have in the bundle's models."""
        weights = trained / "models" / "model.pt"
        if weights.is_file():
            shutil.copy(weights, self.output / "model_large.pt")
            overlay = json.loads(weights.with_suffix(".json").read_text())
            overlay["checkpoint"] = "$@bundle_root + '/models/model_large.pt'"
            (self.output / "model_large.json").write_text(json.dumps(overlay, indent=4) + "\n")
        for path in trained.glob("history*.jsonl"):
            shutil.copy(path, self.output)

    def list_evaluation(self, trained: Path, dataset_dir: Path) -> list[str]:
        """The words of MONAI's command that evaluates what was trained, without what release.json adds to the scans."""
        names = ("train", "release", "large", "evaluate")
        files = [f"bundles/{self.trained}/configs/{name}.json" for name in names] + [f"{trained}/models/model.json"]
        options = {"config_file": files, "dataset_dir": dataset_dir, "output_dir": self.scratch / "evaluated"}
        options |= {"method": "large", "slice_axis": "SI", "scan_degradation": "@degradation"}
        return [word for key, value in options.items() for word in (f"--{key}", str(value))]

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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_session", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the whole queue; default %(default)s")
    parser.add_argument("--bundle", choices=TRAINED, default=TRAINED[0], help="to train; default %(default)s")
    parser.add_argument("--output", type=Path, default=os.environ.get("OUT"), help="folder for results; default $OUT")
    parser.add_argument("--fetch", action="store_true", help="get ready what travels, and no more")
    parser.add_argument("--labels", type=Path, help="folder of label maps to carry; with --fetch")
    parser.add_argument("--scans", type=Path, help="folder of real volumes to carry, such as CT; with --fetch")
    parser.add_argument("--dry-run", action="store_true", help="print the steps and what travels, and no more")
    options = parser.parse_args()
    if options.fetch:
        for folder, into in ((options.labels, wheels.LABELS), (options.scans, wheels.SCANS)):
            if folder is not None:
                wheels.pack(folder, into)
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
        Queue(session, output, Path(scratch), options.bundle).run()
    for path in sorted(output.iterdir()):
        session.say(f"{path.stat().st_size / 2**20:6.2f} MiB {path.name}")
    if (output / "table.md").is_file():
        print((output / "table.md").read_text())
    session.say(f"FAILED: {', '.join(session.failed)}" if session.failed else "all steps passed")
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
