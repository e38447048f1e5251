"""A scan by each bundle that ships weights, and what a plain loop takes: ``python -m tests.benchmarks.scan``.

The plain loop is MONAI's ``SlidingWindowInferer`` or ``SliceInferer`` in float32, one window at a time, with the same
network, weights and input, over as many directions as the bundle's inferer. *This* is ``super-resolve``, whole and in
parts: the network's calls, agreement with the scan, fine-tuning, and the rest (imports, loading, saving). The limit is
the network's multiply-adds over the processor's rate, which is that of a matrix product or a convolution, whichever is
faster, on all cores in the precision that *this* takes. Each is measured in a process of its own, on the CPU.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import SliceInferer, SlidingWindowInferer
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from .common_parts import command, in_own_process, seconds

_ROOT = Path(__file__).parents[2]
_PARTS = ("network", "agreement", "fine-tuning")


def config(bundle: str) -> ConfigParser:
    """Of the inference with the weights that ship."""
    parser = ConfigParser(ConfigParser.load_config_file(_ROOT / "bundles" / bundle / "configs" / "inference.json"))
    parser["bundle_root"] = str(_ROOT / "bundles" / bundle)
    return parser


def simulate_head(folder: Path) -> None:
    """``folder/sub-001/sub-001_t1w.nii.gz`` and ``..._t2w.nii.gz``, of 1 mm."""
    from common.data.simulation.heads import simulate

    simulate(str(folder), subjects=1, contrasts="t1w,t2w")


def make_scan(heads: Path, folder: Path, shape: Sequence[int], parser: ConfigParser) -> dict[str, Path]:
    """A head in voxels as large as the bundle's scans have, and its guide where it needs one.

    It is cut to ``shape``, and mirrored beyond its ends where it is smaller.
    """
    scale = parser.get_parsed_content("scale")
    contrasts = {"scan": "t2w", "guide": "t1w"} if parser.get("guided", False) else {"scan": "t1w"}
    files = {kind: folder / f"sub-001_{contrast}.nii.gz" for kind, contrast in contrasts.items()}
    folder.mkdir()
    for kind, file in files.items():
        image, affine = nib.load(heads / file.name), np.eye(4)
        size = np.multiply(shape, scale)
        padding = np.maximum(size - image.shape, 0)
        head = np.pad(image.get_fdata(dtype=np.float32), [(n // 2, n - n // 2) for n in padding], mode="symmetric")
        head = head[tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(head.shape, size, strict=True))]
        if kind == "scan":
            head = F.avg_pool3d(torch.from_numpy(head)[None], tuple(scale))[0].numpy()
            affine = np.diag([*scale, 1])
            affine[:3, 3] = (np.array(scale) - 1) / 2
        nib.save(nib.Nifti1Image(head.astype(np.int16), image.affine @ affine), file)
    return files


def super_resolve(tree: Path, bundle: str, scale: Sequence[int], files: dict[str, Path], given: Path) -> dict:
    """Seconds of ``super-resolve`` by the code in a folder, whole and in parts; what its inferer is given is kept."""
    with tempfile.TemporaryDirectory() as folder:
        figures, log = Path(folder) / "figures.json", Path(folder) / "log"
        line = [sys.executable, str(Path(__file__).with_name("scan_parts.py")), str(figures), str(given)]
        line += ["super-resolve", str(files["scan"]), str(Path(folder) / "results"), "--bundle", bundle]
        line += ["--scale", json.dumps(scale).replace(" ", "")]
        line += ["--guide", str(files["guide"])] if "guide" in files else []
        start = time.perf_counter()
        with log.open("w") as said:
            code = subprocess.run(line, cwd=tree, stdout=said, stderr=subprocess.STDOUT).returncode
        taken = time.perf_counter() - start
        if code:
            raise ValueError(f"{bundle}: super-resolve failed:\n{log.read_text()}")
        found = {**dict.fromkeys(_PARTS, 0.0), **json.loads(figures.read_text()), "seconds": taken}
        return found | {"rest": taken - sum(found[part] for part in _PARTS)}


def plain_inference(parser: ConfigParser, network: Callable, volume: torch.Tensor, *guide: torch.Tensor) -> None:
    """What a peer would write with MONAI to apply the network, window by window."""
    inferer, axes = parser.get_parsed_content("inferer"), (2,)
    while hasattr(inferer, "inferer"):
        inferer = inferer.inferer
        axes = getattr(inferer, "axes", axes)
    kind = type(inferer).__name__
    if kind == "OrthogonalInferer":
        for axis in (0, 1):
            SliceInferer(spatial_dim=axis, roi_size=(-1, -1))(volume, network)
    elif kind == "CascadeInferer":
        # It joins the guide to the image that it has interpolated.
        image = F.interpolate(volume, scale_factor=parser.get_parsed_content("scale"), mode="trilinear")
        SlidingWindowInferer((-1, -1, 1), overlap=0)(torch.cat([image, *guide], dim=1), network)
    elif kind == "SlabInferer":
        slabs = SlidingWindowInferer((-1, -1, inferer.slices), overlap=1 - 1 / inferer.slices)
        for axis in axes:
            slabs(volume.movedim(2 + axis, -1).contiguous(), network)
    else:
        raise ValueError(f"{kind} has no plain loop here; add it to plain_inference.")


@torch.no_grad()
def plain_loop(bundle: str, given: Path) -> dict[str, float]:
    """Seconds, peak GiB and multiply-adds of the plain loop."""
    from common.weights import load

    parser = config(bundle)
    parts = [parser.get_parsed_content(key) for key in ("network_def", "checkpoint", "digest", "degradation")]
    network = load(*parts[:2], torch.device("cpu"), *parts[2:])
    network = network.to(memory_format=torch.contiguous_format)
    calls, counted = Counter(), {}

    def counting(window: torch.Tensor) -> torch.Tensor:
        calls[window.shape] += 1
        return network(window)

    volumes = torch.load(given)
    start = time.perf_counter()
    plain_inference(parser, counting, *volumes)
    taken, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for shape in calls:
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(shape))
        counted[shape] = counter.get_total_flops() // 2
    return {"seconds": taken, "gib": peak, "work": sum(count * counted[shape] for shape, count in calls.items())}


@torch.no_grad()
def rate(precision: str) -> float:
    """Multiply-adds a second that the processor does: of a matrix product, or a convolution where that is faster."""
    dtype, size, features = getattr(torch, precision), 2048, 256
    matrix = torch.ones(size, size, dtype=dtype)
    image = torch.ones(1, features, 64, 64, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.ones(features, features, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    ways = {lambda: matrix @ matrix: size**3, lambda: F.conv2d(image, weight, padding=1): image.numel() * features * 9}
    return max(work / min(seconds(way, 1) for _ in range(20)) for way, work in ways.items())


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[Path]:
    """A folder with ``common`` and ``bundles`` as they were at a revision."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", revision, "common", "bundles"], cwd=_ROOT, capture_output=True)
        if archive.returncode:
            raise ValueError(f"revision {revision}: {archive.stderr.decode().strip()}; name one of git log.")
        subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)
        yield Path(folder)


def table(rows: Sequence[dict[str, object]]) -> str:
    """Markdown, with the columns of the first row."""
    lines = [[*rows[0]], ["---"] * len(rows[0]), *([_short(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _least(found: dict | None, new: dict, name: str) -> dict:
    """The quicker of two measurements; the new one is said in a line."""
    print(f"{name}: {new['seconds']:.1f} s, {new['gib']:.2f} GiB", flush=True)
    return new if found is None or new["seconds"] < found["seconds"] else found


def main(bundle=None, shape=(80, 96, 64), scan=None, revision=None, rounds=1) -> None:
    """Measure, and print a table in Markdown.

    Args:
        bundle: one to measure; default all that ship weights and take one scan. A scan needs one.
        shape: voxels of a simulated scan.
        scan: a NIfTI file in the place of a simulated scan, for a bundle that needs no guide.
        revision: of this repository, for example 225863a, whose super-resolve is measured too, in turn.
        rounds: how often all are measured; the quickest counts.
    """
    shipped = sorted({path.parents[1].name for path in _ROOT.glob("bundles/*/models/model.pt")} - {"stacks"})
    if bundle not in (None, *shipped):
        raise ValueError(f"bundle is {bundle!r}, expected one of {', '.join(shipped)}.")
    if scan and (bundle is None or config(bundle).get("guided", False)):
        raise ValueError("--scan needs a --bundle that takes no guide.")
    # OpenMP reads it when a process starts, as common does; beside other work threads that spin measure nothing.
    os.environ |= {"OMP_WAIT_POLICY": "passive", "CUDA_VISIBLE_DEVICES": ""}
    results, rates = {}, {}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        trees = {"before": stack.enter_context(tree_of(str(revision)))} if revision else {}
        trees["this"] = _ROOT
        if scan is None:
            in_own_process(simulate_head, folder)  # memory of this process would count as that of those it starts
        for name in [bundle] if bundle else shipped:
            parser = config(name)
            if scan is None:
                files = make_scan(folder / "sub-001", folder / name, shape, parser)
            else:
                files = {"scan": Path(scan).absolute()}
            best: dict[str, dict] = {}
            for _ in range(rounds):
                for which, tree in trees.items():
                    given = folder / f"{name} {which}.pt"
                    found = super_resolve(tree, name, parser.get_parsed_content("scale"), files, given)
                    best[which] = _least(best.get(which), found, f"{name}, {which}")
                found = in_own_process(plain_loop, name, given)
                best["plain"] = _least(best.get("plain"), found, f"{name}, plain loop")
            precision = best["this"]["precision"]
            rates[precision] = max(in_own_process(rate, precision), rates.get(precision, 0.0))  # other work slows it
            results[name] = nib.load(files["scan"]).shape, best
    said = [f"{precision} {rate / 5e8:.0f} GFLOP/s" for precision, rate in rates.items()]
    print(f"\n{', '.join([f'{os.cpu_count()} cores', f'load {os.getloadavg()[0]:.1f}', *said])}\n")
    print(table([_row(name, *result, rates) for name, result in results.items()]))


def _row(bundle: str, shape: Sequence[int], found: dict[str, dict], rates: dict[str, float]) -> dict[str, object]:
    this, plain, before = found["this"], found["plain"], found.get("before")
    limit = plain["work"] / rates[this["precision"]]
    row = {"bundle": bundle, "voxels": "x".join(map(str, shape)), "plain loop, s": plain["seconds"]}
    if before:
        row |= {"before, s": before["seconds"], "before, network, s": before["network"]}
    row |= {"this, s": this["seconds"], **{f"{part}, s": this[part] for part in (*_PARTS, "rest")}}
    row |= {"limit, s": limit, "precision": this["precision"]}
    row |= {"plain loop / this": plain["seconds"] / this["seconds"]}
    row |= {"plain loop / network": plain["seconds"] / this["network"], "limit / network": limit / this["network"]}
    if before:
        row |= {"before / this": before["seconds"] / this["seconds"]}
    row |= {
        "plain loop, GiB": plain["gib"],
        **({"before, GiB": before["gib"]} if before else {}),
        "this, GiB": this["gib"],
    }
    return row | {"plain loop, 1e9 multiply-adds": plain["work"] / 1e9, "this, 1e9": this["work"] / 1e9}


if __name__ == "__main__":
    command(main)
