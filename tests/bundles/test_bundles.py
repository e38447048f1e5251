"""What holds for every bundle: it trains, it infers, and MONAI's own checks of a bundle pass."""

import json
import re
import shutil
from itertools import permutations, product
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from nibabel.affines import from_matvec
from nibabel.orientations import io_orientation

from common.data.lists.datalist import SCANS
from common.lab.tables.rows import expand_folds, read_table_rows
from common.lab.tables.runs import list_runs
from common.lab.tables.runs import make_command_words as words_of
from common.program.commands.export import COLLECTION
from common.program.export.modules import find_distributions, find_needed_modules, list_strings
from common.program.export.readme import PINNED
from common.runtime.unknown_keys import refuse_unknown_keys
from common.start import read_arguments

from ..pages import Page
from . import runs

# Mandatory by MONAI's bundle specification; the zoo asks for the changelog and the schema too.
META = {
    "schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
    "task", "description", "authors", "copyright", "network_data_format",
}  # fmt: skip
TENSOR = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def"}
# The clients that serve one scan, by the versions that they are tested with.
APPS = {
    app: re.search(rf"^{package}==(.*)$", (runs.ROOT / "common" / "program" / "apps" / file).read_text(), re.MULTILINE)[
        1
    ]
    for app, package, file in (
        ("monai-label", "monailabel", "monailabel/requirements.txt"),
        ("monai-deploy", "monai-deploy-app-sdk", "deploy/requirements.txt"),
    )
}
METADATA = sorted(runs.ROOT.glob("bundles/*/configs/metadata.json"))
DOCS = ("README.md", "results.md", "data_license.txt")
# Orders and directions in which a scan's axes may be stored.
ORIENTATIONS = ["".join(codes) for order in permutations(("RL", "AP", "SI")) for codes in product(*order)]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def having(key, value, path=()):
    """Paths of the dictionaries of a config that have a key."""
    if isinstance(value, dict) and key in value:
        yield "#".join(path)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from having(key, item, (*path, str(name)))


def simulated(parser, **changes):
    """An override of what a training simulates: its own, changed."""
    return {"dataset_dir": {**parser["dataset_dir"], **changes}}


def test_train(bundle, tiny, cohort, trained, tmp_path):
    """train.json leaves weights, state and history; resumed when finished it does nothing."""
    weights = {file for name in ("model.pt", "model_last.pt", *tiny.weights) for file in (name, name[:-3] + ".json")}
    states = {f"training_state{stage}.pt" for stage in tiny.stages}
    assert {p.name for p in (trained / "models").iterdir()} == {*weights, *states, *tiny.folders}
    for stage in tiny.stages:
        epochs, length = tiny.length(stage)
        lines = runs.history(trained, stage)
        validations = [line for line in lines if any(key.startswith("validation/") for key in line)]
        steps = [line for line in lines if line not in validations]
        assert [line["iteration"] for line in steps] == list(range(1, epochs * length + 1))
        assert [line["epoch"] for line in steps] == [1 + i // length for i in range(epochs * length)]
        validated = () if stage in tiny.unvalidated else range(epochs)
        assert [line["iteration"] for line in validations] == [length * (i + 1) for i in validated]
        assert all(np.isfinite(value) for line in lines for value in line.values())
        assert (trained / "out" / f"losses{stage}.png").is_file()
    events = [path for path in (trained / "out" / "tensorboard").rglob("events.*") if path.is_file()]
    assert len(events) == len(tiny.stages)

    again = shutil.copytree(trained, tmp_path / "again")
    runs.run(bundle, ["train"], again, dataset_dir=str(cohort), resume=True)
    before, after = contents(trained), contents(again)
    before, after = [{k: v for k, v in c.items() if "tensorboard" not in k.parts} for c in (before, after)]
    assert before == after


@runs.of("srcnn", "ct_guided")
def test_the_saved_config_alone_gives_the_same_training(bundle, cohort, trained, tmp_path):
    override = {"output_dir": str(tmp_path / "out"), "ckpt_dir": str(tmp_path / "models")}
    with runs.undrawn(), pytest.warns(UserWarning, match="parsing config_file"):
        monai.bundle.run(config_file=str(trained / "out" / "config.json"), logging_file=False, **override)
    assert runs.same(runs.results(bundle, trained), runs.results(bundle, tmp_path))


@runs.of("srcnn", "downsampling_gan")
def test_a_training_that_its_minutes_end_goes_on_as_if_it_had_not_ended(bundle, tiny, cohort, tmp_path, capsys):
    """It ends after an iteration, whose weights are validated and saved; no further stage begins."""
    options = {"dataset_dir": str(cohort), **tiny.lasting(2, 2)}
    whole, parts, first = tmp_path / "whole", tmp_path / "parts", tiny.stages[0]
    runs.run(bundle, ["train"], whole, **options)
    for iteration in (1, 2, 3):
        capsys.readouterr()
        runs.run(bundle, ["train"], parts, **options, resume=True, minutes=1e-9)
        assert f"iteration {iteration} of 4" in capsys.readouterr().out
        last = runs.history(parts, first)[-1]
        assert last["iteration"] == iteration and (first in tiny.unvalidated or "validation/psnr" in last)
        assert {path.stem for path in (parts / "models").glob("*state*")} == {f"training_state{first}"}
        assert (parts / "models" / "model.pt").is_file() or first in tiny.unvalidated
    runs.run(bundle, ["train"], parts, **options, resume=True)
    for stage in tiny.stages:
        losses = [[line for line in runs.history(folder, stage) if len(line) > 3] for folder in (whole, parts)]
        assert losses[0] == losses[1] and len(losses[0]) == 4
        files = [folder / "models" / f"training_state{stage}.pt" for folder in (whole, parts)]
        one, other = (torch.load(file, weights_only=True) for file in files)
        assert runs.same({**one, "best": None}, {**other, "best": None})


@runs.each_form
def test_another_run_is_refused(bundle, cohort, trained, tmp_path):
    """A folder that holds a run is left alone, unless it is said to be continued or replaced."""
    folder = shutil.copytree(trained, tmp_path / "run")
    for ckpt_dir in (folder / "models", tmp_path / "elsewhere"):
        words, override = (folder / "out", "--resume True", "--overwrite True"), {"ckpt_dir": str(ckpt_dir)}
        runs.fails(bundle, ["train"], folder, *words, dataset_dir=str(cohort), **override)


@pytest.mark.parametrize("bundle", runs.like_others_slow, indirect=True, scope="session")
def test_initial(bundle, tiny, cohort, trained, tmp_path):
    """A training starts from the weights that it is given, and its networks are in training mode."""
    config = ConfigParser.load_config_file(runs.configs(bundle, "train")[0])
    at_rest = {"learning_rate": 0.0} | {f"{path}#stop_below": "$None" for path in having("stop_below", config)}
    weights = str(trained / "models" / "model.pt")
    options = {"dataset_dir": str(cohort), "initial": weights, **tiny.lasting(1, 1), **at_rest}
    runs.run(bundle, ["train"], tmp_path, **options)
    first, last = (torch.load(path, weights_only=True) for path in (weights, tmp_path / "models" / "model.pt"))
    learned = [name for name in first if "running_" not in name and "num_batches" not in name]
    assert first.keys() == last.keys() and all(torch.equal(first[name], last[name]) for name in learned)
    # Which of the weights are best, the first or those with newly measured batches, is for the validation to say.
    states = [torch.load(path, weights_only=True)["graph"] for path in (tmp_path / "models").glob("training_state*")]
    counts = [max((v for k, v in s.items() if "num_batches" in k), default=0) for s in [first, *states]]
    assert not counts[0] or max(counts[1:]) > counts[0]
    message = runs.fails(bundle, ["train"], tmp_path / "none", **{**options, "initial": str(tmp_path / "none.pt")})
    assert f"no weights at {tmp_path / 'none.pt'}" in message and "--initial PATH" in message


def test_properties(bundle, cohort, trained):
    """Those of a training; those of inference are checked where it is exported."""
    options = runs.overrides(bundle, ["train"], trained, dataset_dir=str(cohort), resume=True)
    config = runs.configs(bundle, "train")
    workflow = ConfigWorkflow(config_file=config, workflow_type="train", logging_file=False, **options)
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("path", METADATA, ids=lambda path: path.parts[-3])
def test_metadata(path):
    """Also of bundles that are not trained. The packages are those that an export imports, the apps those here."""
    root, meta = path.parents[1], json.loads(path.read_text())
    assert META <= meta.keys() and meta["version"] in meta["changelog"]
    tensors = meta["network_data_format"]
    for tensor in (*tensors["inputs"].values(), *tensors["outputs"].values()):
        assert TENSOR <= tensor.keys()
    for file in ("configs/inference.json", "configs/logging.conf", *(f"docs/{name}" for name in DOCS)):
        assert (root / file).is_file(), f"{root / file} is missing"
    configs = [json.loads(file.read_text()) for file in path.parent.glob("*.json") if file.stem not in COLLECTION]
    strings = [text for text in list_strings(configs) if ".program." not in text]  # which exports drop
    needed, tried = find_distributions(strings, find_needed_modules(strings))
    trains = {"tensorboard"} if (path.parent / "train.json").is_file() else set()
    listed = {name.lower() for name in meta["required_packages_version"]}
    of_monai = {"pytorch-ignite", *trains}
    assert {*needed} - {*PINNED} | of_monai <= listed <= {*needed, *tried} | of_monai
    assert meta.get("supported_apps", APPS) == APPS and ("supported_apps" in meta) != (
        "fewest_stacks" in meta["selection"]
    )


def test_overlays(bundle):
    """An overlay changes keys that its configs have, or adds keys that are used; the command line takes its keys."""
    configs = runs.ROOT / "bundles" / bundle / "configs"
    overlays = {path.stem: path for path in configs.glob("*.json") if path.stem not in ("metadata", "tables")}
    assert {"train", "inference", "evaluate", "demo"} <= overlays.keys()
    # Sizes may be laid over the configs that apply weights too.
    read = {"imports", "finalize", *json.loads(overlays["inference"].read_text())}
    for overlay, path in overlays.items():
        content = json.loads(path.read_text())
        if overlay.startswith("inference"):  # an overlay of inference.json says so by its name
            names = ["inference"]
        else:
            applied = overlay == "demo" or any(key.removeprefix("+").startswith("evaluate#") for key in content)
            names = ["train", "evaluate"] if applied else ["train"]
        if overlay not in names:
            base = runs.content(bundle, None, *names)
            for key in content:
                plain = key.removeprefix("+")
                known = plain in (*base.get(), *read) or "#" in key or f"@{key}" in json.dumps(content)
                assert known, f"{overlay}.json: {key} is neither in {names} nor used"
            names = [*names, overlay]
        merged = runs.content(bundle, None, *names)
        assert merged["run"] and "common.start.prepare_run" in json.dumps(merged["initialize"])
        line = runs.words(bundle, names, Path("out"), dataset_dir="data")[1:]
        refuse_unknown_keys(read_arguments(line))  # which looks into nested keys
        with pytest.raises(ValueError, match="--dataset_di: the configs have no such key; did you mean --dataset_dir"):
            refuse_unknown_keys(read_arguments([*line, "--dataset_di", "data"]))


def test_tables(bundle, tmp_path):
    """Each row of the bundle's tables, in folds or not, is a command line that the configs take."""
    configs, different = runs.ROOT / "bundles" / bundle / "configs", {}
    if not (configs / "tables.json").is_file():
        return
    for table, written in json.loads((configs / "tables.json").read_text()).items():
        rows = read_table_rows(str(configs.parent), table)
        folds = all("fold" in json.loads(Path(row["bundle"], "configs", "train.json").read_text()) for row in rows)
        for listing in (rows, [expand_folds(row, 4) for row in rows] if folds else []):
            found = list_runs(listing, tmp_path, {"dataset_dir": "data", "max_epochs": 1})
            assert {run.row for run in found} == {row["name"] for row in written if listing}
            for run, evaluate in product(found, (False, True)):
                arguments = read_arguments(words_of(run, False, evaluate))
                alike = {key: arguments[key] for key in arguments.keys() - {"output_dir", "ckpt_dir", "fold"}}
                different["fold" in arguments, json.dumps(alike, sort_keys=True)] = arguments
    for arguments in different.values():
        refuse_unknown_keys(arguments)


def test_documented_overrides(bundle):
    """What a bundle's table of overrides lists, some command line takes."""
    text = (runs.ROOT / "bundles" / bundle / "docs" / "README.md").read_text()
    cells = re.findall(r"^\| (`--[^|]*) \|", text, flags=re.MULTILINE)

    def refused(key, *names):
        try:
            refuse_unknown_keys({"config_file": runs.configs(bundle, *names), key: "$None"})
        except ValueError:
            return True
        return False

    named = {key for cell in cells for key in re.findall(r"--([\w#/]+)", cell)}
    assert not [key for key in named if refused(key, "train", "evaluate") and refused(key, "inference")]


FOLDED = [name for name in runs.TINY if "fold" in json.loads(Path(*runs.configs(name, "train")).read_text())]


@pytest.mark.parametrize("bundle", FOLDED, indirect=True, scope="session")
def test_cross_validation(bundle, tiny, cohort, tmp_path):
    """Each subject with known HR is evaluated in one fold, in whose training it is nowhere; CT is always trained on.

    Where the datalist has nothing to validate with, a scan that trains is it.
    """
    learned = [group for group in ("source", "target") if group in tiny.groups]
    subjects = {group: {f"sub-{i}" for i in tiny.groups[group]} for group in (*learned, "test")}
    foldable = set.union(*(own for group, own in subjects.items() if (group, tiny.source) != ("source", "ct")))
    data, held = runs.datalist(tmp_path, **{**runs.listed(cohort, tiny), "validation": []}), []
    for fold in range(len(foldable)):
        override = {"datalist#folds": len(foldable), "fold": fold, "slice_axis": "SI"}
        listed = runs.content(bundle, "datalist", "train", dataset_dir=str(data), **override)
        kinds = {"source": "ct" if tiny.source == "ct" else SCANS}
        *trained, test = (
            {entry["subject"] for entry in listed.read(group, kinds.get(group, SCANS))} for group in (*learned, "test")
        )
        everything = set.union(*trained)
        assert everything | test == set.union(*subjects.values()) and not everything & test
        held += test
    assert sorted(held) == sorted(foldable)


@pytest.mark.parametrize("n", [1, 24])
def test_network_in_out(bundle, tiny, n):
    """The network of inference.json takes and gives what metadata.json says, as MONAI checks it, and in shape."""
    meta = str(runs.ROOT / "bundles" / bundle / "configs" / "metadata.json")
    (config,) = runs.configs(bundle, "inference")
    monai.bundle.verify_net_in_out(
        net_id="network_def", meta_file=meta, config_file=config, n=n, device="cpu", **tiny.network
    )
    parser = ConfigParser()
    parser.read_config(config)
    parser.read_meta(meta)
    parser.update(tiny.network)
    network = parser.get_parsed_content("network_def").eval()
    formats = [parser[f"_meta_#network_data_format#{name}"] for name in ("inputs#image", "outputs#pred")]
    shapes = [[f["num_channels"], *(eval(str(size), {"n": n}) for size in f["spatial_shape"])] for f in formats]
    assert list(network(torch.rand(1, *shapes[0])).shape) == [1, *shapes[1]]


@runs.each_form
def test_inference_orientations(bundle, tiny, trained, tmp_path):
    """A scan of any orientation comes back in that orientation and type, and lies where HR lies in the world.

    However it is stored, the voxels are the same. Each bundle has a share of the 48 orders and directions.
    """
    share = runs.FORMS.index(bundle)
    dtype = (np.int16, np.float32)[share % 2]
    stored = ["RAS", *ORIENTATIONS[share :: len(runs.FORMS)]]
    scans = {axes: (runs.AFFINE, axes) for axes in stored}
    scans |= {"oblique": (runs.OBLIQUE, "RAS"), "obliqueIPL": (runs.OBLIQUE, "IPL")}
    hr = runs.phantom(7, (44, 48, 40))
    paths = {
        name: tiny.save_lr(tmp_path / "scans", name, hr, affine, dtype=dtype, axes=axes)
        for name, (affine, axes) in scans.items()
    }
    options = {"register": False} if tiny.guided else {}
    inference = {"dataset_dir": str(tmp_path / "scans"), "output_dir": str(tmp_path / "sr"), **options}
    runs.run(bundle, ["inference"], trained, **inference)
    assert set(runs.written(tmp_path / "sr")) == {f"{tiny.case(name)}_sr.nii.gz" for name in scans}
    found = {}
    for name, (affine, _) in scans.items():
        lr, sr = nib.load(paths[name]), nib.load(tmp_path / "sr" / f"{tiny.case(name)}_sr.nii.gz")
        assert nib.aff2axcodes(sr.affine) == nib.aff2axcodes(lr.affine)
        assert sr.get_data_dtype() == lr.get_data_dtype() == dtype and sr.dataobj.slope == 1
        world, direction = io_orientation(lr.affine).astype(int).T
        factors, offset = (np.array(v)[world] for v in (tiny.degradation.factors, tiny.degradation.offset))
        # Counted from the other end of an axis that is stored in the other direction.
        offset = np.where(direction > 0, offset, factors - 1 - offset)
        assert sr.shape == tuple(factors * lr.shape)
        np.testing.assert_allclose(
            sr.affine, lr.affine @ from_matvec(np.diag(1 / factors), -offset / factors), atol=1e-5
        )
        distance = np.linalg.inv(affine[:3, :3]) @ (
            runs.centre_of_mass(sr) - runs.centre_of_mass(nib.Nifti1Image(hr, affine))
        )
        assert np.abs(distance).max() < 0.1
        found[name] = sr.get_fdata()
        assert 0 <= found[name].min() and 0.9 < found[name].max() / hr.max() < 1.1
        tolerance = 1 if dtype == np.int16 else 0.01
        seen = nib.as_closest_canonical(sr).get_fdata()
        np.testing.assert_allclose(seen, found["RAS"], atol=tolerance)

    # One scan gives what it gave in the folder.
    last = tiny.case(stored[-1])
    inference = {"output_dir": str(tmp_path / "one"), **tiny.only(paths[stored[-1]]), **options}
    runs.run(bundle, ["inference"], trained, **inference)
    assert runs.written(tmp_path / "one") == [f"{last}_sr.nii.gz"]
    one = nib.load(tmp_path / "one" / f"{last}_sr.nii.gz")
    np.testing.assert_array_equal(one.get_fdata(), found[stored[-1]])


@runs.of("udean_window", "guided_rdn")
def test_pages(bundle, tiny, trained, tmp_path):
    """With the overlay a page stands beside the result, of volumes that lie where they lie in the world.

    So does what was added to the scan, which its degradation does not see. Neither stays beside a later result.
    """
    path = tiny.save_lr(tmp_path / "scans", "a", runs.phantom(7), runs.OBLIQUE, dtype=np.int16, axes="PSR")
    out, name = tmp_path / "sr", tiny.case("a")
    runs.run(bundle, [*runs.CASES, f"{runs.OVERLAYS}/report"], trained, output_dir=str(out), **tiny.only(path))
    page = Page(out / f"{name}_sr.html")
    scan, sr, added = nib.load(path), nib.load(out / f"{name}_sr.nii.gz"), nib.load(out / f"{name}_added.nii.gz")
    high = np.quantile(scan.get_fdata(), 0.999)
    for volume, image in {"scan": scan, "cubic": sr, "SR": sr}.items():
        shown, image = nib.as_closest_canonical(page.volumes[volume]), nib.as_closest_canonical(image)
        np.testing.assert_allclose(shown.affine, image.affine, atol=1e-4)
        difference = np.abs(shown.get_fdata() - image.get_fdata().clip(0, high))
        assert difference.max() <= high / 500 if volume != "cubic" else difference.mean() < 0.05 * high, volume
    assert page.title == path.name
    told = json.loads((out / f"{name}_sr.json").read_text())["SuperResolution"]
    assert f"made by {told['Bundle']} " in page.text and told["Weights"]["FileSha256"][:12] in page.text
    assert page.text.count("<li>") == len(told["Warnings"]) + len(told["Notices"])
    np.testing.assert_allclose(added.affine, sr.affine, atol=1e-6)
    detail = added.get_fdata()
    most = page.settings["added"]["window"][1]
    np.testing.assert_allclose(page.overlay.get_fdata(), detail.clip(-most, most), atol=most / 250)
    assert detail.min() < 0 < detail.max() and [*told["Added"]] == ["dark", "middle", "bright"]
    operator = runs.content(bundle, "degradation", "inference")
    seen, whole = (
        operator(torch.from_numpy(nib.as_closest_canonical(image).get_fdata().copy())).norm() for image in (added, sr)
    )
    assert seen < 0.02 * whole
    runs.run(bundle, runs.CASES, trained, output_dir=str(out), **tiny.only(path))
    assert runs.written(out) == [f"{name}_sr.nii.gz"] and not (out / f"{name}_sr.html").exists()
    overlays = [f"{runs.OVERLAYS}/grid", f"{runs.OVERLAYS}/report"]
    runs.run(bundle, [*runs.CASES, *overlays], trained, output_dir=str(out), spacing=0.9, **tiny.only(path))
    told = json.loads((out / f"{name}_sr.json").read_text())["SuperResolution"]
    assert "--spacing" in told["Added"]["Unknown"] and told["Added"]["Unknown"] in Page(out / f"{name}_sr.html").text
    assert not (out / f"{name}_added.nii.gz").exists()


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name, tiny in runs.TINY.items() if tiny.like]


@pytest.mark.parametrize("name", ["srcnn", "guided_rdn", "downsampling_gan", *OTHERS])
def test_demo(name, tmp_path):
    """It simulates heads, trains all that it compares, and evaluates it."""
    names, tiny = ["train", "evaluate", "demo"], runs.TINY[name]
    config = runs.content(name, None, *names)
    listed = config["dataset_dir#datalist"]
    split = [min(subjects, 2) for subjects in listed["split"]]
    few = {"subjects": sum(split), "spacing": 4, "datalist": {**listed, "split": split}}
    small = {**simulated(config, **few), **tiny.network, **tiny.training, **tiny.lasting(1, 2)}
    runs.run(name, names, tmp_path, ckpt_dir=None, checkpoint=None, **small)
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    methods = [config.get_parsed_content("method")]
    assert list(summary) == ["cubic", *methods]
    assert len(list((tmp_path / "out").rglob("model.pt"))) == len(methods)
