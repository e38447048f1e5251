"""UDEAN: the paper's sizes and losses, every form of its training, and runs that are killed or shared."""

from __future__ import annotations

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.bundle import ConfigParser
from nibabel.affines import from_matvec
from scipy.ndimage import map_coordinates

from common.commands.remember import remember
from common.degradations import KSpaceTruncation

from . import runs

PAPER = {
    # eq. 4 to 9: image cycle, feature cycle, HR and LR consistency, image and feature adaptation
    "generator/image_cycle/l1", "generator/image_cycle/ssim", "generator/image_cycle/adversarial",
    "generator/feature_cycle/l1",
    "generator/hr_consistency/l1", "generator/hr_consistency/ssim", "generator/hr_consistency/adversarial",
    "generator/lr_consistency/l1", "generator/lr_consistency/ssim", "generator/lr_consistency/adversarial",
    "generator/image_adaptation/fake", "generator/image_adaptation/real",
    "generator/feature_adaptation/target", "generator/feature_adaptation/source",
    # eq. 11 and 12, and the HR discriminator that eq. 4 and 6 presume
    "discriminator/lr/real", "discriminator/lr/fake",
    "discriminator/feature/source", "discriminator/feature/target",
    "discriminator/hr/real", "discriminator/hr/fake", "discriminator/hr/self",
}  # fmt: skip


udean = pytest.mark.parametrize("bundle", ["udean"], indirect=True, scope="session")
UDEAN = runs.TINY["udean"]


def parser(*names, **override):
    """The bundle's configs merged, with overrides."""
    found = ConfigParser()
    found.read_config(runs.configs("udean", *names))
    found.update(override)
    return found


def terms(folder):
    """Names of the loss terms of a run."""
    found = runs.history(folder)[0].keys() - {"epoch", "iteration"}
    return {name for name in found if not name.endswith("/total")}


def test_parameter_counts():
    """Table II of the paper: 2.457 M, and 4.765 M with an encoder and decoder that translate LR images first."""
    for names in (["inference", "inference_full"], ["train", "paper"]):
        network = parser(*names).get_parsed_content("network_def")
        assert sum(p.numel() for p in network.parameters()) == 2_457_002
    # And a vector of 64 numbers for each axis that may lie across a slab.
    directed = parser("train").get_parsed_content("network_def")
    assert sum(p.numel() for p in directed.parameters()) == 2_457_002 + 3 * 64
    assert parser("train", scale=[2, 2, 1]).get_parsed_content("turns") == 1
    found = parser("train", "paper")
    modules = [found.get_parsed_content(name) for name in ("lr_encoder", "lr_decoder", "lr_encoder", "sr_decoder")]
    assert sum(p.numel() for module in modules for p in module.parameters()) == 4_764_561
    # The compact network is that of the shipped weights, which know no axes.
    for names, vectors in ((["inference"], 0), (["train", "compact"], 3)):
        network = parser(*names).get_parsed_content("network_def")
        assert sum(p.numel() for p in network.parameters()) == 672_081 + vectors * 48


def truncate(volume, factor):
    """K-space truncation by numpy's complex FFT: the central frequencies, of the one at -n/2 its real part."""
    for axis in range(3):
        size = volume.shape[axis]
        n = size // factor
        index = np.fft.fftfreq(n, 1 / n).astype(int) % size
        k_space = np.moveaxis(np.fft.fft(volume, axis=axis), axis, 0)[index]
        if n % 2 == 0:
            k_space[n // 2] = k_space[n // 2].real
        volume = np.moveaxis(np.fft.ifft(k_space, axis=0).real / factor, 0, axis)
    return volume


@udean
def test_evaluate(cohort, trained, tmp_path):
    """The table's cubic row is what numpy gets, and pictures, table and super-resolved scan are there."""
    folder = shutil.copytree(trained, tmp_path / "run")
    others = {"again": str(folder / "models" / "model.pt")}
    runs.run("udean", ["train", "evaluate"], folder, dataset_dir=str(cohort), others=others)
    written = {path.name for path in (folder / "out").iterdir()}
    case = "sub-5_t1w"
    pictures = {f"{case}.png", f"{case}_profile.png", "boxplots.png", "losses.png"}
    assert pictures | {"table.csv", "table.json", f"{case}_sr.nii.gz"} <= written
    assert all(imread(folder / "out" / name).std() > 0.01 for name in pictures)
    with (folder / "out" / "table.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert {row["case"] for row in rows.values()} == {case} and rows.keys() == {"cubic", "UDEAN", "again"}
    assert {**rows["again"], "method": "UDEAN"} == rows["UDEAN"]
    summary = json.loads((folder / "out" / "table.json").read_text())
    assert case in json.dumps(summary) and "null" not in json.dumps(summary["summary"]["UDEAN"]["psnr"]["mean"])

    image = runs.to_the_right(cohort / f"{case}.nii.gz")
    hr = image.get_fdata()
    assert image.shape == (41, 37, 44)
    hr = hr[:40, :36] / np.quantile(hr, 0.999)
    positions = np.meshgrid(*[np.arange(n) / 2 for n in hr.shape], indexing="ij")
    cubic = map_coordinates(truncate(hr, 2), positions, order=3, mode="nearest")
    psnr = -10 * np.log10(np.mean((np.clip(cubic, 0, 1) - np.clip(hr, 0, 1)) ** 2))
    assert float(rows["cubic"]["psnr"]) == pytest.approx(psnr, abs=1e-3)
    assert [float(rows["cubic"][f"displacement_{axis}"]) for axis in "xyz"] == [0, 0, 0]

    sr = runs.to_the_right(folder / "out" / f"{case}_sr.nii.gz")
    assert sr.shape == hr.shape and sr.get_data_dtype() == image.get_data_dtype()
    np.testing.assert_allclose(sr.affine, image.affine, atol=1e-5)
    found = sr.get_fdata() / np.quantile(image.get_fdata(), 0.999)
    psnr = -10 * np.log10(np.mean((np.clip(found, 0, 1) - np.clip(hr, 0, 1)) ** 2))
    assert float(rows["UDEAN"]["psnr"]) == pytest.approx(psnr, abs=0.05)


ALL = (PAPER - {f"generator/image_adaptation/{side}" for side in ("fake", "real")}) | {
    f"degradation/{name}" for name in ("image_adaptation/fake", "image_adaptation/real", "anchor/low_frequency")
}
# Of eq. 4 to 9 what pays: image cycle and image adaptation.
DEFAULT = {"generator/image_cycle/l1", "generator/image_cycle/ssim", "discriminator/lr/real", "discriminator/lr/fake"}
DEFAULT |= {name for name in ALL if name.startswith("degradation/")}
DETAIL = DEFAULT | {
    "detail/detail/adaptation",
    "detail/detail/l1",
    "discriminator/detail/real",
    "discriminator/detail/fake",
}
FEATURES = {f"generator/feature_adaptation/{side}" for side in ("target", "fake")}
FEATURES |= {"degradation/feature_adaptation/fake", "discriminator/feature/source", "discriminator/feature/target"}
WEIGHTS = {"beta": 0.01, "lambda_2": 0.1, "lambda_3": 1.0, "lambda_4": 1.0, "lambda_6": 0.1}
SUPERVISED = {"generator/image/l1", "generator/image/ssim"}
ADVERSARIAL = SUPERVISED | {"generator/image/adversarial", "discriminator/hr/real", "discriminator/hr/fake"}
FORMS = {
    "default": (["train"], {}, DEFAULT),
    "every term": (["train"], WEIGHTS, ALL),
    "detail": (["train", "detail"], {}, DETAIL),
    "detail, 2x2x1": (["train", "detail"], {"scale": [2, 2, 1]}, DETAIL),
    "detail and drawn noise": (["train", "drawn_noise", "detail"], {}, DETAIL),
    "detail and feature adaptation": (["train", "detail", "feature_adaptation"], {}, DETAIL | FEATURES),
    "feature adaptation": (["train", "feature_adaptation"], {}, DEFAULT | FEATURES),
    "no feature adaptation": (["train", "feature_adaptation"], {"lambda_6": 0.0}, DEFAULT),
    "drawn noise": (["train", "drawn_noise"], {}, DEFAULT),
    "beyond the band": (["train", "beyond_band"], {}, DEFAULT | {"generator/image_cycle/beyond"}),
    "running mean": (["train", "running_mean"], {}, DEFAULT),
    "paper": (["train", "paper"], {}, PAPER),
    "2x2x1": (["train"], {"scale": [2, 2, 1]}, DEFAULT),
    "paper, 2x2x1": (["train", "paper"], {"scale": [2, 2, 1]}, PAPER),
    "feature space only": (["train"], WEIGHTS | {"lambda_5": 0}, {n for n in ALL if "image_adaptation" not in n}),
    "image space only": (
        ["train"],
        WEIGHTS | {"lambda_6": 0},
        {n for n in ALL if "feature_adaptation" not in n and "discriminator/feature" not in n},
    ),
    "paper, feature space only": (["train", "paper"], {"lambda_5": 0}, {n for n in PAPER if "image_adapt" not in n}),
    "paper, anchored": (["train", "paper", "paper_anchored"], {}, PAPER | {"generator/anchor/low_frequency"}),
    "paper, supervised": (["train", "paper", "train_supervised"], {}, ADVERSARIAL),
    "no HR adversary": (["train", "paper"], {"beta": 0}, {n for n in PAPER if "advers" not in n and "/hr/" not in n}),
    "supervised": (["train", "train_supervised"], {}, SUPERVISED),
    "supervised, 2x2x1": (["train", "train_supervised"], {"scale": [2, 2, 1], "beta": 0.01}, ADVERSARIAL),
}


@pytest.mark.parametrize("form", FORMS)
@udean
def test_forms(cohort, tmp_path, form):
    """Every form of the paper's tables trains, with the terms that its equations have and no others."""
    names, override, expected = FORMS[form]
    runs.run("udean", names, tmp_path, dataset_dir=str(cohort), max_epochs=1, epoch_length=2, **override)
    assert terms(tmp_path) == expected
    # The paper's decoder starts from nothing, the others from cubic interpolation.
    assert runs.history(tmp_path)[-1]["validation/psnr"] > (10 if "paper" in names else 25)
    assert (tmp_path / "models" / "model.pt").is_file()
    learned = tmp_path / "out" / "degradation.json"
    assert learned.is_file() == any(term.startswith("degradation/") for term in expected)
    if learned.is_file():
        about = json.loads(learned.read_text())
        # Of the target's scans, which have none, whatever is drawn for the network.
        assert len(about["axes"]) == 3 and max(about["noise"]) < 0.01
        assert [axis["window"][-1] == 1 for axis in about["axes"]] == [False, False, "2x2x1" in form]
        assert imread(learned.with_suffix(".png")).std() > 0.01


@pytest.mark.parametrize(
    ("names", "override", "message"),
    [
        (["train", "paper", "drawn_noise"], {}, "paper.json: its LR decoder learns noise"),
        (["train", "paper"], {"noise_levels": "[0.5]"}, "paper.json: its LR decoder learns noise"),
        (["train", "paper_anchored"], {}, "paper_anchored.json adds to paper.json"),
        (["train", "drawn_noise", "feature_adaptation"], {}, "feature_adaptation.json compares features"),
        (["train"], {"training_noise": "[]"}, "training_noise are '[]', expected a list"),
        (["train"], {"features": 8, "reduction": 16}, "reduction is 16, expected at most the 8 features"),
        (["train"], {"any_axis": True, "fourier_encoded": "[true,true,false]"}, "not encoded alike"),
        (["train"], {"misaligned": True}, "dataset.json is not of a misaligned cohort"),
        (["train", "train_supervised"], {"misaligned": True}, "dataset.json is not of a misaligned cohort"),
        (["train"], {"noise_levels": 0.02}, "noise_levels are 0.02, expected a list"),
        (["train"], {"anchor": -0.1}, "anchor is negative"),
        (["train", "train_supervised", "drawn_noise"], {}, "train_supervised.json trains on the noise"),
    ],
)
@udean
def test_what_does_not_go_together_is_refused(cohort, tmp_path, names, override, message):
    assert message in runs.fails("udean", names, tmp_path, dataset_dir=str(cohort), **override)


@udean
def test_running_mean(cohort, tmp_path):
    """What is validated and kept is the mean of the weights, of a run that was continued too."""
    options = {"dataset_dir": str(cohort), "epoch_length": 4, "momentum": 0.25, "save_minutes": 0}
    # A cosine would end sooner in the shorter run.
    options["cosine"] = {"_target_": "torch.optim.lr_scheduler.ConstantLR", "_mode_": "callable", "factor": 1.0}
    names = ["train", "running_mean"]

    def weights(folder):
        kept, state = (torch.load(folder / "models" / f, weights_only=True) for f in ("model.pt", "training_state.pt"))
        mean = {key.split(".mean.")[1]: value for key, value in state["graph"].items() if ".mean." in key}
        now = {key: state["graph"][f"networks.{'lr' if key[0] == 'e' else 'sr'}_{key}"] for key in mean}
        return kept, mean, now

    runs.run("udean", names, tmp_path / "whole", max_epochs=2, val_interval=2, **options)
    kept, mean, now = weights(tmp_path / "whole")
    assert mean and runs.same({key: kept[key] for key in mean}, mean)
    assert not any(torch.equal(now[key], value) for key, value in mean.items() if ".base." not in key)
    runs.run("udean", names, tmp_path / "parts", max_epochs=1, **options)
    runs.run("udean", names, tmp_path / "parts", max_epochs=2, val_interval=2, resume=True, **options)
    assert runs.same(weights(tmp_path / "parts")[1], mean)


@pytest.mark.parametrize("table", ["I", "I_unpaired"])
def test_rows_of_table_1_are_comparable(table):
    """They differ in what table I compares, and in nothing else: network, residual, directions, agreement, weights."""
    rows = json.loads((runs.ROOT / "bundles/udean/configs/tables.json").read_text())[table]
    found = []
    for row in rows:
        config = parser("train", *row["overlays"], **row.get("override", {}))
        keys = ["settings", "axes", "projections", "lr_patch", "batch_size", "learning_rate", "alpha", "beta", "widths"]
        found.append({key: config.get_parsed_content(key) for key in [*keys, "misaligned", "scan_degradation"]})
        assert isinstance(found[-1].pop("scan_degradation"), KSpaceTruncation)
        assert found[-1]["misaligned"] == (table == "I") and found[-1]["settings"]["residual"] is False
    assert all(row == found[0] for row in found) and len(rows) == {"I": 5, "I_unpaired": 4}[table]


def test_rows_of_the_levers_have_like_networks():
    """Those of the paper's form have discriminators of one size, the supervised ones too."""
    rows = json.loads((runs.ROOT / "bundles/udean/configs/tables.json").read_text())["levers"]
    configs = [
        parser("train", *row["overlays"], **row.get("override", {})) for row in rows if "paper" in row["overlays"]
    ]
    assert len(configs) > 5 and {tuple(config.get_parsed_content("widths")) for config in configs} == {(16, 32, 64, 64)}


@udean
def test_loss_rows_that_are_dropped(cohort, tmp_path):
    """By an overlay, or by a word of the command line: the term is not trained, and all others are."""
    overlay = tmp_path / "less.json"
    overlay.write_text(json.dumps({"players#generator#losses#image_cycle/ssim": None}))
    short = {"dataset_dir": str(cohort), "max_epochs": 1, "epoch_length": 1}
    runs.run("udean", ["train", str(overlay.with_suffix(""))], tmp_path / "overlay", **short)
    dropped = {"players#generator#losses#image_cycle/ssim": "$None"}
    done = runs.command("udean", ["train"], tmp_path / "words", **short, **dropped)
    assert done.returncode == 0, done.stderr
    assert terms(tmp_path / "overlay") == terms(tmp_path / "words") == DEFAULT - {"generator/image_cycle/ssim"}


@pytest.mark.parametrize(("overlay", "method"), [("paper", "UDEAN"), ("train_supervised", "supervised")])
@udean
def test_evaluate_forms(cohort, tmp_path, overlay, method):
    """Evaluate.json over another form: its network in the table, and feature maps where LR style is learned."""
    names, across = ["train", overlay], {"scale": [2, 2, 1], "slice_axis": "AP"}
    runs.run("udean", names, tmp_path, dataset_dir=str(cohort), max_epochs=1, epoch_length=1, **across)
    runs.run("udean", [*names, "evaluate"], tmp_path, dataset_dir=str(cohort))
    # What is evaluated is in plane across AP, as was trained: subject 5 has 41 voxels along LR, of which 40 are used.
    assert nib.load(tmp_path / "out" / "sub-5_t1w_sr.nii.gz").shape == (40, 36, 44)
    message = runs.fails("udean", [*names, "evaluate"], tmp_path, dataset_dir=str(cohort), slice_axis="SI")
    assert "slice_axis is 'SI', but these weights were trained with 'AP'" in message
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert summary.keys() == {"cubic", method} and summary[method]["psnr"]["mean"] > 10
    assert (tmp_path / "out" / "features.png").is_file() == (overlay == "paper")
    if overlay == "paper":
        # A panel for the training with adaptation, and one for that without, where it is given.
        alone = imread(tmp_path / "out" / "tsne.png")
        state, before = tmp_path / "models" / "training_state.pt", tmp_path / "before.pt"
        shutil.copy(state, before)
        runs.run("udean", [*names, "evaluate"], tmp_path, dataset_dir=str(cohort), before=str(before))
        assert imread(tmp_path / "out" / "tsne.png").shape[1] == 2 * alone.shape[1]
        other = str(tmp_path / "models" / "model.pt")
        message = runs.fails("udean", [*names, "evaluate"], tmp_path, dataset_dir=str(cohort), before=other)
        assert "model.pt: not the state of a training of these networks" in message


@udean
def test_misaligned_and_registered(cohort, tmp_path):
    """Source and target of the same subjects, HR moved; table I's supervised rows on them, and one registered first."""
    pairs = [{"hr": cohort / f"sub-{i}_t1w.nii.gz"} for i in (0, 2)]
    rest = {"validation": [{"hr": cohort / "sub-4_t1w.nii.gz"}], "test": [{"hr": cohort / "sub-5_t1w.nii.gz"}]}
    data = str(runs.datalist(tmp_path / "data", misaligned=True, source=pairs, target=pairs, **rest))
    short = {"dataset_dir": data, "max_epochs": 1, "epoch_length": 1, "misaligned": True}
    runs.run("udean", ["train"], tmp_path / "unsupervised", **short)
    runs.run("udean", ["train"], tmp_path / "again", **short)
    runs.run("udean", ["train", "train_supervised"], tmp_path / "supervised", **short)
    runs.run("udean", ["train", "train_supervised"], tmp_path / "registered", registered=True, **short)
    assert terms(tmp_path / "unsupervised") == DEFAULT
    assert runs.history(tmp_path / "again") == runs.history(tmp_path / "unsupervised")  # or no run could be resumed
    assert terms(tmp_path / "supervised") == terms(tmp_path / "registered") == SUPERVISED
    l1 = {n: runs.history(tmp_path / n)[0]["generator/image/l1"] for n in ("supervised", "registered")}
    runs.run("udean", ["train", "train_supervised"], tmp_path / "aligned", **{**short, "misaligned": False})
    aligned = runs.history(tmp_path / "aligned")[0]["generator/image/l1"]
    assert aligned < l1["registered"] < l1["supervised"]


@udean
def test_authentic_lr(cohort, tmp_path):
    """Target scans that are LR already, and validation and test pairs of HR and LR."""
    lr = {}
    for i in (2, 3, 4, 5):
        image = nib.as_closest_canonical(nib.load(cohort / f"sub-{i}_t1w.nii.gz"))
        volume = image.get_fdata()[tuple(slice(n // 2 * 2) for n in image.shape)]
        lr[i] = runs.save(
            tmp_path / "lr" / f"sub-{i}_lr.nii.gz", *runs.degrade(volume, image.affine, UDEAN.degradation), np.int16
        )
    hr = [cohort / f"sub-{i}_t1w.nii.gz" for i in range(6)]
    data = runs.datalist(
        tmp_path / "data",
        source=[{"hr": hr[0]}, {"hr": hr[1]}],
        target=[{"lr": lr[2]}, {"lr": lr[3]}],
        validation=[{"hr": hr[4], "lr": lr[4]}],
        test=[{"hr": hr[5], "lr": lr[5]}],
    )
    short = {"dataset_dir": str(data), "max_epochs": 1, "epoch_length": 1}
    runs.run("udean", ["train"], tmp_path, **short)
    runs.run("udean", ["train", "evaluate"], tmp_path, **short)
    assert terms(tmp_path) == DEFAULT and runs.history(tmp_path)[-1]["validation/psnr"] > 20
    assert (tmp_path / "out" / "table.csv").is_file()


@udean
def test_scale_contradicts_spacing(cohort, tmp_path):
    """LR scans whose voxels are not the scale factor times as large."""
    lr, affine = runs.degrade(runs.phantom(2), runs.AFFINE, KSpaceTruncation((2, 2, 1)))
    scan = runs.save(tmp_path / "lr_221.nii.gz", lr, affine)
    files = [{"hr": cohort / f"sub-{i}_t1w.nii.gz"} for i in (0, 4, 5)]
    data = runs.datalist(
        tmp_path / "data", source=files[:1], target=[{"lr": scan}], validation=files[1:2], test=files[2:]
    )
    with pytest.raises(RuntimeError) as error:
        runs.run("udean", ["train"], tmp_path / "run", dataset_dir=str(data))
    message = str(runs.first_cause(error.value))
    assert "lr_221.nii.gz: [2.0, 2.2, 1.2] mm" in message and "[2.0, 2.2, 2.4] mm" in message and "Set scale" in message


def test_inference_2x2x1(tmp_path):
    """Where one axis is not upsampled it is the slab's, wherever that is stored."""
    weights = parser("inference", scale=[2, 2, 1], **UDEAN.network).get_parsed_content("network_def")
    (tmp_path / "models").mkdir()
    torch.save(weights.state_dict(), tmp_path / "models" / "model.pt")  # as older files, that say nothing
    lr, affine = runs.degrade(runs.phantom(3), runs.OBLIQUE, KSpaceTruncation((2, 2, 1)))
    scan = runs.save(tmp_path / "scan.nii.gz", lr, affine, np.int16, "ASL")
    runs.run("udean", ["inference"], tmp_path, dataset_dir=str(scan), scale=[2, 2, 1], **UDEAN.network)
    lr, sr = nib.load(scan), nib.load(tmp_path / "out" / "scan_sr.nii.gz")
    assert lr.shape == (22, 36, 20) and sr.shape == (44, 36, 40)
    # LR voxel i lies on HR voxel 2i from the left and from posterior: on 2i + 1 of what is stored from the right.
    np.testing.assert_allclose(sr.affine, lr.affine @ from_matvec(np.diag([0.5, 1, 0.5]), [0, 0, -0.5]), atol=1e-5)


@udean
def test_weights_of_the_other_form(cohort, trained, tmp_path):
    """Inference knows the paper's form by its weights, where it would make no sense on top of cubic interpolation."""
    runs.run("udean", ["train", "paper"], tmp_path, dataset_dir=str(cohort), max_epochs=1, epoch_length=1)
    scan = UDEAN.save_lr(tmp_path / "scans", "a", runs.phantom(0))
    found = []
    for out, override in (("own", {}), ("told", {"axes": [2], "projections": 0, "residual": "false"})):
        folder = {"dataset_dir": str(scan), "output_dir": str(tmp_path / out)}
        runs.run("udean", ["inference"], tmp_path, **folder, **override)
        found.append(nib.load(tmp_path / out / "sub-a_t1w_sr.nii.gz").get_fdata())
    assert np.array_equal(*found)
    message = runs.fails("udean", ["inference"], trained, dataset_dir=str(scan), residual=False)
    assert "model.pt, of udean" in message and "residual is False, but these weights were trained with True" in message


@udean
def test_how_sure_results_are(cohort, trained, tmp_path):
    """Fitted on cases with known HR, kept in the weights, written beside a result: in its units and on its grid."""
    weights = tmp_path / "models" / "model.pt"
    weights.parent.mkdir()
    weights.write_bytes((trained / "models" / "model.pt").read_bytes())
    runs.run("udean", ["train", "evaluate", "evaluate_uncertainty"], tmp_path, dataset_dir=str(cohort))
    report = json.loads((tmp_path / "out" / "uncertainty.json").read_text())
    a, b = report["scale"]
    assert a >= 0 and b >= 0 and a + b > 0 and len(report["predicted"]) == len(report["rms_error"]) == 20
    assert all(-1 <= rank <= 1 for rank in report["rank_correlation"].values()) and report["rank_correlation"]
    np.testing.assert_allclose(report["predicted"], report["rms_error"], rtol=1.0)
    assert imread(tmp_path / "out" / "uncertainty.png").shape[2] in (3, 4)

    scan = runs.TINY["udean"].save_lr(
        tmp_path / "scans",
        "a",
        runs.phantom(0),
    )
    options = {"dataset_dir": str(scan), "output_dir": str(tmp_path / "sr"), "uncertainty": True}
    message = runs.fails("udean", ["inference"], tmp_path, **options)
    assert "--uncertainty_scale" in message
    remember(str(weights), uncertainty_scale=[a, b])
    message = runs.fails("udean", ["inference"], tmp_path, axes=[2], **options)
    assert "of other axes" in message and not (tmp_path / "sr").exists()
    runs.run("udean", ["inference"], tmp_path, **options)
    name = scan.name.removesuffix(".nii.gz")
    sr, sd = (nib.load(tmp_path / "sr" / f"{name}_{kind}.nii.gz") for kind in ("sr", "sd"))
    np.testing.assert_allclose(sd.affine, sr.affine)
    assert sd.shape == sr.shape and sd.get_data_dtype() == np.float32
    values, errors = sr.get_fdata(), sd.get_fdata()
    assert errors.min() >= 0 and errors.max() < 0.5 * values.max()
    options |= {"output_dir": str(tmp_path / "twice"), "uncertainty_scale": [2 * a, 2 * b]}
    runs.run("udean", ["inference"], tmp_path, **options)
    np.testing.assert_allclose(nib.load(tmp_path / "twice" / f"{name}_sd.nii.gz").get_fdata(), 2 * errors, rtol=1e-5)
    said = json.loads((tmp_path / "sr" / f"{name}_sd.json").read_text())
    assert "measured" in said["Description"]
    assert said["MeasuredKSpace"] == [n / m for n, m in zip(nib.load(scan).shape, sr.shape, strict=True)]
    message = runs.fails("udean", ["inference"], trained, dataset_dir=str(tmp_path / "sr"))
    assert "results" in message, "a standard error is no scan"


@udean
def test_prolonged(cohort, trained, tmp_path):
    """A finished run goes on to more epochs, and what it has done stays as it was; to fewer it does not go on."""
    folder = shutil.copytree(trained, tmp_path / "run")
    runs.run("udean", ["train"], folder, dataset_dir=str(cohort), resume=True, max_epochs=3)
    before, after = runs.history(trained), runs.history(folder)
    assert after[: len(before)] == before
    assert [line["iteration"] for line in after[len(before) :]] == [9, 10, 11, 12, 12]
    message = runs.fails("udean", ["train"], folder, dataset_dir=str(cohort), resume=True, max_epochs=1)
    assert "was started with max_epochs 3, now it is 1" in message and "a larger max_epochs" in message
