"""What of MONAI opens each exported bundle: a test for each, or the reason why not."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from onnx.reference import ReferenceEvaluator

from common.weights.loading import compute_digest, read_overlay

from .. import forked
from ..refused import has
from ..stacks.phantom import Phantom, grid
from . import runs
from .test_bundles import META

pytestmark = pytest.mark.usefixtures("forget")

CONFIGS = {name: path for path in sorted(runs.ROOT.glob("bundles/*/configs")) if (name := path.parent.name)}
TRAINED = {name: (CONFIGS[name] / "train.json").read_text() for name in runs.BUNDLES}
UNTRAINED = {name: "nothing to train" for name in CONFIGS if name not in TRAINED}
STAGED = {name: "trains in stages" for name, text in TRAINED.items() if "StagedTrainer" in text}
WITHOUT_WEIGHTS = {
    name: "no weights" for name, path in CONFIGS.items() if "@checkpoint" not in (path / "inference.json").read_text()
}
# Each entry point of MONAI, and the bundles that it does not take, with the reason.
CLOSED: dict[str, dict[str, str]] = {
    "`run`": {},
    "`create_workflow`": {},
    "`verify_metadata`": {},
    "`verify_net_in_out`": {},
    "`load`": WITHOUT_WEIGHTS,
    "`ckpt_export`": WITHOUT_WEIGHTS,
    "`onnx_export`": WITHOUT_WEIGHTS,
    "training": UNTRAINED,
    "`MonaiAlgo`": {**STAGED, **UNTRAINED},
    "`get_bundle_info`": dict.fromkeys(CONFIGS, "asks GitHub"),
}
TESTED = set()


def opens(entry_point: str) -> Callable:
    """Marks the test of an entry point, for each bundle that it takes; all but two in the second step."""
    TESTED.add(entry_point)
    fast = ("srcnn", "guided_rdn")
    cases = [
        pytest.param(b, marks=() if b in fast else pytest.mark.slow) for b in CONFIGS if b not in CLOSED[entry_point]
    ]
    return pytest.mark.parametrize("bundle", cases, indirect=True, scope="session")


def test_the_guide_has_the_table_of_doors():
    """It names each entry point, and lists what it does not take: those with one reason share a row."""
    assert TESTED == {entry for entry, closed in CLOSED.items() if len(closed) < len(CONFIGS)}
    rows: dict[tuple[str, str], list[str]] = {}
    for entry, closed in CLOSED.items():
        for reason in dict.fromkeys(closed.values()):
            names = [f"`{bundle}`" for bundle in CONFIGS if closed.get(bundle) == reason]
            listed = "all" if len(names) == len(CONFIGS) else ", ".join(names)
            rows.setdefault((listed, reason), []).append(entry)
    lines = [f"| {names} | {', '.join(entries)} | {reason} |" for (names, reason), entries in rows.items()]
    page = (runs.ROOT / "common" / "docs" / "serving.md").read_text()
    assert "\n".join(lines) in page, "\n".join(lines)
    assert not [entry for entry in CLOSED if entry not in page]


def at(folder: Path, scratch: Path, config: object, **options: object) -> None:
    """``python -m monai.bundle run`` in a folder; EXPORT_PYTHON may name another Python than this one."""
    words = ["run", "--config_file", str(config)]
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    if "EXPORT_PYTHON" not in os.environ:
        done = forked.command(["monai.bundle", *words], folder, scratch)
    else:
        done = subprocess.run(
            [os.environ["EXPORT_PYTHON"], "-m", "monai.bundle", *words],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr


# The scans of an exam, with the axis across their slices and their contrast, for bundles that take several.
EXAMS = {"stacks": {"t1_ax": (2, 1), "t1_sag": (0, 1)}}
FAST = {"iterations": 3, "adapt_iterations": 0, "batch_size": 16, "features": 16, "layers": 1, "frequencies": 8}


@pytest.fixture
def scans(bundle, tmp_path) -> dict[str, object]:
    """Overrides of inference.json for scans that take seconds."""
    folder = tmp_path / "scans"
    if bundle in runs.TINY:
        tiny = runs.TINY[bundle]
        path = tiny.save_lr(folder, "a", runs.phantom(0), runs.OBLIQUE, dtype=np.float32, axes="PSR")
        options = tiny.only(path)
    else:
        for name, (across, contrast) in EXAMS.get(bundle, {"a_T1w": (2, 1), "a_T2w": (0, -1)}).items():
            shape, affine = grid(across)
            runs.save(folder / f"{name}.nii.gz", 1000 * Phantom(7, contrast).stack(shape, affine), affine)
        options = {"dataset_dir": str(folder), "spacing": 2.0}
    known = json.loads((CONFIGS[bundle] / "inference.json").read_text())
    sizes = FAST if bundle == "multi_contrast_inr" else ("iterations", "adapt_iterations")
    return {**options, **{key: FAST[key] for key in sizes if key in known}}


@opens("`run`")
def test_run_inference(bundle, exported, scans, tmp_path):
    """In the exported folder alone, ``run`` gives the repository's voxels."""
    overlay = exported / "models" / "model.json"
    beside = {"checkpoint": overlay.with_suffix(".pt")} if overlay.is_file() else {}
    configs = [*runs.configs(bundle, "inference"), *([str(overlay)] if beside else [])]
    at(runs.ROOT, tmp_path, configs, **beside, **scans, output_dir=tmp_path / "here")
    at(exported, tmp_path, "configs/inference.json", **scans, output_dir=tmp_path / "there")
    here, there = (sorted((tmp_path / name).glob("*_sr.nii.gz")) for name in ("here", "there"))
    assert [path.name for path in here] == [path.name for path in there] and here
    for first, second in zip(map(nib.load, here), map(nib.load, there), strict=True):
        assert first.header == second.header
        np.testing.assert_array_equal(first.get_fdata(), second.get_fdata())


def trains(bundle: str, cohort: Path, folder: Path, **override: object) -> dict[str, object]:
    """Overrides for the tiniest training."""
    tiny = runs.TINY[bundle]
    options = {**tiny.lasting(1, 1), "dataset_dir": str(cohort), **override}
    return runs.overrides(bundle, ["train"], folder, **options)


@opens("training")
def test_run_training(bundle, cohort, exported, tmp_path):
    """In the exported folder alone, ``run`` trains, and evaluates with the overlay of the weights."""
    options = trains(bundle, cohort, tmp_path)
    overlay = tmp_path / "models" / "model.json"
    for files in (["configs/train.json"], ["configs/train.json", "configs/evaluate.json", str(overlay)]):
        at(exported, tmp_path, files, **options)
    assert overlay.with_suffix(".pt").is_file() and (tmp_path / "out" / "table.json").is_file()


def create_workflow(exported: Path, kind: str, **options: object) -> monai.bundle.ConfigWorkflow:
    files = {key: str(exported / "configs" / f"{name}.json") for key, name in FILES.items()}
    files["config_file"] = str(exported / "configs" / f"{kind}.json")
    return monai.bundle.create_workflow(workflow_type=kind, logging_file=False, **files, **options)


@opens("`create_workflow`")
def test_a_workflow_of_inference(bundle, exported, tmp_path):
    """``create_workflow``, from another folder: without data, all properties are there, and a run says what lacks."""
    workflow = create_workflow(exported, "inference", output_dir=str(tmp_path))
    assert workflow.check_properties() in (None, [])
    assert Path(workflow.bundle_root) == exported
    assert workflow.evaluator.network is not None and workflow.network_def is not None
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    has(str(runs.first_cause(caught.value)), "dataset_dir is null", "--dataset_dir")


@opens("training")
def test_a_workflow_of_training(bundle, cohort, exported, tmp_path):
    workflow = create_workflow(exported, "train", **trains(bundle, cohort, tmp_path))
    assert workflow.check_properties() == [] and callable(workflow.trainer.run)


@opens("`MonaiAlgo`")
def test_two_sites_of_a_federation_train_in_rounds(bundle, tiny, cohort, exported, tmp_path):
    """The mean of the sites' weights is given back to both, trained on and validated by each."""
    sites = {}
    for name in "ab":
        options = trains(bundle, cohort, tmp_path / name, seed=ord(name))
        models = {f"{kind}_model_filepath": options["ckpt_dir"] + "/model.pt" for kind in ("best", "final")}
        sites[name] = MonaiAlgo(str(exported), train_kwargs=options, eval_kwargs=dict(options), **models)
        sites[name].initialize({ExtraItems.CLIENT_NAME: name})
    mean = {key: value.clone() for key, value in sites["a"].trainer.network.state_dict().items()}
    for number in (1, 2):
        changes = []
        for site in sites.values():
            site.train(ExchangeObject(weights={key: value.clone() for key, value in mean.items()}))
            assert site.trainer.state.iteration == number
            sent = site.get_weights()
            assert sent.weight_type == WeightType.WEIGHT_DIFF
            most = max(change.abs().max() for key, change in sent.weights.items() if "num_batches" not in key)
            assert most < 0.5 and (most > 0 or number > 1)  # a schedule of one round may end at a rate of 0
            changes.append(sent.weights)
        mean = {key: value + sum(change[key] for change in changes) / 2 for key, value in mean.items()}
        found = [site.evaluate(ExchangeObject(weights=mean)).metrics["psnr"] for site in sites.values()]
        assert found[0] == pytest.approx(found[1]) and found[0] > 10
    for name, site in sites.items():
        best = site.get_weights({ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
        assert best.keys() == mean.keys()
        site.finalize()
        assert {line["iteration"] for line in runs.history(tmp_path / name)} >= {1, 2}


FILES = {"meta_file": "metadata", "config_file": "inference"}


@pytest.fixture
def files(exported, monkeypatch) -> dict[str, str]:
    """Arguments of MONAI's commands in the bundle's folder, which is on the path there."""
    monkeypatch.chdir(exported)
    monkeypatch.syspath_prepend(str(exported))
    return {key: f"configs/{name}.json" for key, name in FILES.items()}


@pytest.fixture
def network(exported) -> torch.nn.Module:
    """With its weights, by ``load``."""
    return monai.bundle.load(
        exported.name, bundle_dir=str(exported.parent), workflow_type="inference", device="cpu"
    ).eval()


@opens("`load`")
def test_load(bundle, exported, network):
    """From another folder, and by MONAI's default from train.json."""
    loaded = [network]
    if bundle in runs.TINY:
        loaded.append(monai.bundle.load(bundle, bundle_dir=str(exported.parent), device="cpu"))
    digest = read_overlay(exported / "models" / "model.pt")["digest"]
    assert {compute_digest(each.state_dict()) for each in loaded} == {digest}


@opens("`verify_metadata`")
def test_metadata(bundle, files, tmp_path):
    """By a schema with what MONAI's requires; MONAI downloads its own where there is none."""
    (tmp_path / "schema.json").write_text(json.dumps({"type": "object", "required": sorted(META)}))
    monai.bundle.verify_metadata(files["meta_file"], str(tmp_path / "schema.json"))


@opens("`verify_net_in_out`")
def test_network_in_and_out(bundle, files):
    monai.bundle.verify_net_in_out("network_def", **files, device="cpu", n=16)


def make_image(size: int) -> torch.Tensor:
    """An image that the network takes, in the bundle's folder."""
    image = json.loads(Path("configs/metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    return torch.rand(1, image["num_channels"], *(size if n == "n" else n for n in image["spatial_shape"]))


@opens("`ckpt_export`")
def test_torchscript(bundle, network, files, tmp_path):
    """It gives what eager mode gives, for each stage of a cascade, axis of a slab or step of a diffusion."""
    path, config = str(tmp_path / "model.ts"), json.loads(Path("configs/inference.json").read_text())
    monai.bundle.ckpt_export("network_def", path, "models/model.pt", **files)
    scripted, x = torch.jit.load(path), make_image(17)
    counts = [config[key] for key in ("cascade", "slab_orientations", "steps") if key in config]
    for choice in [(k,) for n in counts for k in range(n)] or [()]:
        with torch.no_grad():
            torch.testing.assert_close(scripted(x, *choice), network(x, *choice), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")  # within torch
@opens("`onnx_export`")
def test_onnx(bundle, network, files, tmp_path):
    """It gives what eager mode gives."""
    path, x = str(tmp_path / "model.onnx"), make_image(12)
    monai.bundle.onnx_export("network_def", path, "models/model.pt", **files, input_shape=[*x.shape])
    exported = ReferenceEvaluator(path)
    (found,) = exported.run(None, {exported.input_names[0]: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(x), atol=1e-4, rtol=0)
