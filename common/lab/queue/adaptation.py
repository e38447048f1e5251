"""Adapt ct_guided's weights to real thick stacks in several ways, and judge each by stacks of people held out.

    python -m common.lab.queue.adaptation --exams EXAMS --output_dir OUT

adaptation.json has the stacks that are learned from, those that are held out, and the overlays of each row over
``train.json`` and the shipped weights. LR are the thick stacks, HR their slices, which are fine along both axes. The
rows: ``profile`` is stage 1, with the profile that is measured in each stack; ``own_stages`` are stages 2 and 3;
``image_space`` and ``feature_space`` are the two adaptations of Liu et al. 2023, with the bundle's network. A row
takes about an hour of one core. One that is in OUT is not trained again; one that was stopped goes on. Then each
held-out stack is foretold from the next one of its exam, as by ``exams_left_out``.
Decided before a score was seen: in a better row each person's coherence is above ``ct_guided``'s, and the mean
correlation over people is not lower.

adaptation.csv beside this file gets the lines, adaptation_over_cubic.csv the means over people.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...degradations.fitted_profile import FittedProfile
from ...io.slice_thickness import read_profile_width
from ...transforms.scan.load import LoadScand
from .exams_left_out import NETWORKS, judge_stacks

_ROOT, _PLAN = Path(__file__).parents[3], Path(__file__).with_suffix(".json")


class Part(nn.Module):
    """A part of a network, as a network of its own.

    Args:
        modules: that hold its parameters.
        compute: its forward pass, a method of the whole network.
    """

    def __init__(self, modules: Iterable[nn.Module], compute: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.compute = compute

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """As ``compute``."""
        return self.compute(*inputs)


def measure_widths(files: Iterable[Path], factor: int) -> list[float]:
    """Profile widths of stacks in distances of their slices: by the protocol, else measured, else 1."""
    widths = []
    for file in files:
        volume = LoadScand("lr", check_mr=False)({"lr": str(file)})["lr"][None]
        width = read_profile_width(volume) or FittedProfile((1, 1, factor)).estimate_width(volume)[0] or 1.0
        widths.append(round(width, 3))
    return widths


def train_row(plan: Mapping[str, Any], name: str, exams: Path, folder: Path) -> Path:
    """Train a row, unless its folder is there, which a training gets at its end; returns the file of its weights."""
    weights = folder / "models" / "model.pt"
    if folder.exists():
        return weights
    run = folder.with_name(f"{name}_training").resolve()
    run.mkdir(parents=True, exist_ok=True)
    stacks = {exam: [exams / exam / f"{stack}.nii.gz" for stack in names] for exam, names in plan["learn"].items()}
    groups: dict[str, Any] = {"misaligned": True, "source": [], "target": [], "validation": [], "test": []}
    for exam, files in stacks.items():
        for file in files:
            groups["source"].append({"hr": str(file.resolve()), "subject": exam})
            groups["target"].append({"lr": str(file.resolve()), "subject": exam})
    (run / "dataset.json").write_text(json.dumps(groups, indent=2))
    shipped = _ROOT / "bundles" / "ct_guided" / "models" / f"model_{plan['scale'][2]}.json"
    overlay = {"initial": str(shipped.with_suffix(".pt")), **plan["all"], **plan["rows"][name]}
    if name == "profile":
        widths = measure_widths([file for files in stacks.values() for file in files], plan["scale"][2])
        profiles = [{"_target_": "common.degradations.GaussianProfile", "factors": "@scale", "fwhm": w} for w in widths]
        overlay["thickening"] = {"_target_": "common.degradations.RandomDegradation", "degradations": profiles}
    (run / "overlay.json").write_text(json.dumps(overlay, indent=2))
    configs = [str(file) for file in (shipped.parents[1] / "configs" / "train.json", shipped, run / "overlay.json")]
    command = [sys.executable, "-m", "monai.bundle", "run", f"--config_file={configs}", f"--dataset_dir={run}"]
    resume = any(run.glob("models/training_state_*.pt"))
    subprocess.run([*command, f"--output_dir={run}", f"--resume={resume}"], cwd=_ROOT, check=True)
    run.rename(folder)
    return weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", required=True, type=Path)
    parser.add_argument("--output_dir", required=True, type=Path)
    options, plan = parser.parse_args(), json.loads(_PLAN.read_text())
    if not options.exams.is_dir():
        parser.error(f"--exams {options.exams}: there is no such folder; common.lab.queue.exams writes it.")
    networks = {name: NETWORKS[name] for name in ("ct_guided", "fine_tuned")}
    for name in plan["rows"]:
        weights = train_row(plan, name, options.exams, options.output_dir / name)
        networks[name] = {**NETWORKS["ct_guided"], "checkpoint": str(weights)}
    exams = [options.exams / name for name in plan["held_out"]]
    table, means = _PLAN.with_suffix(".csv"), _PLAN.with_name("adaptation_over_cubic.csv")
    judge_stacks(exams, options.output_dir / "held_out", table, means, networks, together=False)


if __name__ == "__main__":
    main()
