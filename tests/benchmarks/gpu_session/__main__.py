"""What a quarter of an hour with a GPU is for: ``python -m tests.benchmarks.gpu_session``, see README.md.

Only the standard library is imported: all else is installed by the first step.
"""

import argparse
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import wheels
from .session import Session

STEPS = "tests.benchmarks.gpu_session.steps"
# Shares of the session at whose ends the steps are ended; what a step leaves is the next one's.
HEADS, SMOKE, BENCHMARK, TRAINED, EVALUATED = 0.5, 0.55, 0.7, 0.87, 0.97


def run(session: Session, output: Path, scratch: Path) -> None:
    """All steps; what fails leaves the others."""
    heads, trained = scratch / "heads", scratch / "run" / "trained"
    pip = ("pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir")
    session.step("wheels", *pip, "--target", scratch / "site", *sorted(wheels.WHEELS.glob("*.whl")), until=HEADS)
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(1 + max(1, cores // 2)) as pool:
        pool.submit(session.step, "heads", STEPS, "heads", heads, cores, until=HEADS, OMP_NUM_THREADS="1")
        for path in sorted(wheels.ROOT.glob("bundles/*/configs/metadata.json")):
            words, bundle = (STEPS, "smoke"), path.parts[-3]
            pool.submit(session.step, f"smoke {bundle}", *words, bundle, scratch, until=SMOKE, OMP_NUM_THREADS="1")
    short = ("--bundle", "udean_window", "--iterations", 30, "--output", output / "gpu.json")
    session.step("benchmark", "tests.benchmarks.gpu", *short, until=BENCHMARK)
    seconds = f"{session.left(TRAINED) - 30:.0f}"
    session.step("training", STEPS, "train", heads, scratch / "run", output, seconds, until=TRAINED)
    for name in ("models/model.pt", "models/model.json", "history.jsonl"):
        if (trained / name).is_file():
            shutil.copy(trained / name, output)
    shipped = Path("bundles/udean_window/models/model.json")
    overlays = {"this training": trained / "models" / "model.json", "shipped": shipped}
    with ThreadPoolExecutor() as pool:
        for method, overlay in overlays.items():
            pool.submit(_evaluate, session, method, overlay, heads, scratch / "evaluated")
    evaluated = sorted((scratch / "evaluated").glob("*/table.json"), reverse=True)
    session.step("table", STEPS, "table", output, *(path.parent for path in evaluated))


def _evaluate(session: Session, method: str, overlay: Path, heads: Path, folder: Path) -> None:
    files = [*(f"bundles/udean_window/configs/{name}.json" for name in ("train", "evaluate")), str(overlay)]
    options = {"config_file": files, "dataset_dir": heads, "output_dir": folder / method.replace(" ", "_")}
    words = [word for key, value in {**options, "method": method}.items() for word in (f"--{key}", str(value))]
    session.step(f"evaluation of {method}", "monai.bundle", "run", *words, until=EVALUATED)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_session", description=__doc__)
    parser.add_argument("--minutes", type=float, default=13, help="of the whole session")
    parser.add_argument("--output", type=Path, default=os.environ.get("OUT"), help="folder for results; default $OUT")
    parser.add_argument("--fetch", action="store_true", help="download the wheels, and no more")
    parser.add_argument("--dry-run", action="store_true", help="print what travels, and no more")
    options = parser.parse_args()
    if options.fetch:
        wheels.fetch()
    if options.fetch or options.dry_run:
        wheels.report()
        return 0
    if options.output is None:
        parser.error("give --output, or set $OUT")
    output = options.output.absolute()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(wheels.ROOT)
        session = Session(output, options.minutes, PYTHONPATH=f"{scratch}/site", OMP_WAIT_POLICY="passive")
        run(session, output, Path(scratch))
    for path in sorted(output.iterdir()):
        session.say(f"{path.stat().st_size / 2**20:6.2f} MiB {path.name}")
    if (output / "table.md").is_file():
        print((output / "table.md").read_text())
    session.say(f"FAILED: {', '.join(session.failed)}" if session.failed else "all steps passed")
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
