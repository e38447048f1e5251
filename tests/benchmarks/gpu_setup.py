"""What ``tests.benchmarks.gpu`` measures: sizes, the trainings of each bundle, and the data that they train on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tests.bundles import runs


@dataclass(frozen=True)
class Sizes:
    name: str  # "paper" for the defaults of train.json, "tiny" for those of tests/bundles/runs.py
    hr: tuple[int, int, int]  # voxels of the HR volumes to train on
    result: tuple[int, int, int]  # voxels of the volume that is inferred
    checked: tuple[int, int, int]  # voxels of the one that is inferred on the CPU too
    warm: int  # iterations before those that are timed
    iterations: int  # that are timed unless it is said how many
    profiled: int  # iterations under the profiler
    repeats: int  # of which a median is taken


PAPER = Sizes("paper", (160, 160, 144), (160, 160, 128), (48, 48, 32), 6, 200, 4, 5)
TINY = Sizes("tiny", (40, 44, 36), (24, 24, 16), (24, 24, 16), 1, 2, 1, 1)


@dataclass(frozen=True)
class Training:
    suffix: str = ""  # of its history and state
    override: Mapping[str, object] = field(default_factory=dict)  # that chooses it
    amp: bool = True  # whether its precision can be chosen; else it is float32 always
    exact: bool = True  # as of runs.Tiny; kernel estimation and the later stages of ct_guided are not

    @property
    def name(self) -> str:
        return self.suffix.strip("_") or "training"


def _stage(number: int, suffix: str = "", **options: bool) -> Training:
    return Training(suffix or f"_{number}", {"only_stages": [number]}, **options)


# In the order in which one needs what the one before has left. Later stages of guided_rdn are the second again.
STAGES = {
    "ct_guided": (_stage(1), _stage(2, exact=False), _stage(3, exact=False)),
    "downsampling_gan": (_stage(1, "_kernels_1", amp=False, exact=False), _stage(2, "_edsr")),
    "guided_rdn": (_stage(1), _stage(2)),
}
TRAININGS = {name: STAGES.get(name, (Training(exact=tiny.exact),)) for name, tiny in runs.TINY.items()}


def make_cohort(bundle: str, sizes: Sizes, folder: Path) -> Path:
    """A datalist with one phantom a group, each another, as a list refuses a volume in two groups."""
    tiny = runs.TINY[bundle]
    groups = {group: [tiny.save_hr(folder, group, runs.phantom(i, sizes.hr))] for i, group in enumerate(tiny.groups)}
    if "source" in groups:
        groups["source"] = [tiny.as_source(entry) for entry in groups["source"]]
    return runs.datalist(folder, **groups)


def vgg_weights(path: Path) -> Path:
    """Random weights of VGG-16 under torchvision's names, as far as ct_guided reads them."""
    state, index, inputs = {}, 0, 1 + 2
    for convolutions, channels in ((2, 64), (2, 128), (3, 256), (3, 512)):
        for _ in range(convolutions):
            layer = torch.nn.Conv2d(inputs, channels, 3)
            torch.nn.init.kaiming_normal_(layer.weight)
            state |= {f"features.{index}.{name}": value.detach() for name, value in layer.named_parameters()}
            index, inputs = index + 2, channels
        index += 1
    torch.save(state, path)
    return path


def settings(bundle: str, sizes: Sizes, cohort: Path) -> dict[str, object]:
    """Overrides of train.json: what phantoms are, and the tiny sizes where they are asked for."""
    tiny, override = runs.TINY[bundle], {"dataset_dir": str(cohort)}
    if sizes.name == "tiny":
        return {**override, **tiny.network, **tiny.training}
    if bundle == "ct_guided":
        override["vgg_weights"] = str(vgg_weights(cohort / "vgg16.pth"))
    of_phantoms = ("slice_axis", "ct_offset", "window")
    return override | {key: tiny.training[key] for key in of_phantoms if key in tiny.training}
