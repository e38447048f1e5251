"""DCSRN, mDCSRN-GAN, 10L-ReCNN, ReconResNet, TSCN and DSN: their layers and their trainings."""

import json

import pytest
import torch

from common.degradations import GaussianProfile
from common.networks import EDSR
from common.weights.loading import load_weights

from . import runs

of_train_and_inference = pytest.mark.parametrize("config", ["train", "inference"])


def count(network):
    return sum(p.numel() for p in network.parameters())


def convolutions_of(network):
    return [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]


@of_train_and_inference
def test_layers_of_dcsrn(config):
    """Convolutions of 48, four times 24 and 1 channels, each on all that was before; it sees 13 pixels."""
    network = runs.content("dcsrn", "network_def", config)
    channels = [(c.in_channels, c.out_channels) for c in convolutions_of(network.body)]
    assert channels == [(1, 48), (48, 24), (72, 24), (96, 24), (120, 24), (144, 1)]
    # 3x3 kernels, biases of the first and the last, and batch norm before the units.
    assert count(network) == 9 * (48 + 24 * 336 + 144) + 49 + 2 * 336
    body = network.body.eval()
    torch.nn.init.normal_(body[-1].weight)
    image = torch.rand(1, 1, 31, 31, requires_grad=True)
    body(image)[0, 0, 15, 15].backward()
    seen = image.grad[0, 0].nonzero()
    assert seen.min() == 15 - 6 and seen.max() == 15 + 6


@pytest.mark.parametrize("bundle", ["dcsrn", "mdcsrn_gan", "srcnn"])
def test_as_the_citing_paper_has_it(bundle):
    """Mirrored and turned, and one projection, in inference too; srcnn by its row."""
    rows = json.loads((runs.ROOT / "bundles" / "guided_rdn" / "configs" / "tables.json").read_text())["I"]
    override = rows[0]["override"] if bundle == "srcnn" else {}
    train = runs.content(bundle, None, "train", **override)
    assert train["train#dataloader#augment"] is True
    found = [train.get_parsed_content("train#inferer")]
    found += [] if bundle == "srcnn" else [runs.content(bundle, "inferer", "inference")]
    for inferer in found:
        assert inferer.iterations == 1 and inferer.degradation.factors == (2, 2, 1)


@of_train_and_inference
def test_layers_of_mdcsrn_gan(config):
    """Chen et al., MICCAI 2018: b4u4 with 16 channels a unit, 0.41 M weights where the kernels are 3-D."""
    body = runs.content("mdcsrn_gan", "network_def", config).body
    assert sum(c.weight.numel() * c.kernel_size[0] for c in convolutions_of(body)) == 409_856
    assert [c.in_channels for c in body.compressors] == [128, 224, 320]
    assert {c.out_channels for c in body.compressors} == {body.head.out_channels} == {32}
    assert (body.tail.in_channels, body.tail.kernel_size) == (416, (1, 1))


@runs.of("mdcsrn_gan")
def test_the_critic_is_heard_after_the_pretraining(cohort, tmp_path):
    """Without it from the first iteration; in a run that was continued as well."""

    def train(name, **override):
        options = {"dataset_dir": str(cohort), "max_epochs": 2, "epoch_length": 2, "lambda_gan": 100.0, **override}
        runs.run("mdcsrn_gan", ["train"], tmp_path / name, **options)
        steps = [line for line in runs.history(tmp_path / name) if "generator/total" in line]
        return [abs(line["generator/total"] - line["generator/image/l1"]) > 1e-6 for line in steps]

    assert train("none", pretraining=0) == [True] * 4
    assert train("whole", pretraining=2) == [False, False, True, True]
    train("parts", pretraining=2, max_epochs=1)
    train("parts", pretraining=2, resume=True)
    states = [tmp_path / name / "models" / "training_state.pt" for name in ("whole", "parts")]
    assert runs.same(*(torch.load(state, weights_only=True)["graph"] for state in states))


@pytest.mark.parametrize(("guided", "parameters"), [(True, 297_217), (False, 296_641)])
@of_train_and_inference
def test_layers_of_recnn(guided, parameters, config):
    """Ten convolutions, of which each sees a pixel more on every side; untrained it is the interpolation."""
    network = runs.content("recnn", "network_def", config, guided=guided)
    assert count(network) == parameters and len(convolutions_of(network)) == 10
    image = torch.rand(2, 1 + guided, 31, 31, 3, requires_grad=True)
    assert torch.equal(network(image), image[:, :1])
    torch.nn.init.normal_(network.stages[0].body[-1].weight)
    network(image)[0, 0, 15, 15, 1].backward()
    assert not image.grad[1].any() and not image.grad[0, ..., [0, 2]].any()
    for channel in image.grad[0, ..., 1]:
        seen = channel.nonzero()
        assert seen.min() == 15 - 10 and seen.max() == 15 + 10


@runs.of("recnn")
def test_recnn_without_a_guide(cohort, tmp_path):
    """It trains and is evaluated without one, and HR is what trains, not the LR of an entry."""
    for names in (["train"], ["train", "evaluate"]):
        runs.run("recnn", names, tmp_path, dataset_dir=str(cohort), guided=False)
    summary = json.loads((tmp_path / "out" / "table.json").read_text())["summary"]
    assert list(summary) == ["cubic", "10L-ReCNN"]


@of_train_and_inference
def test_parameters_of_reconresnet(config):
    """Those of the original's layers."""
    ends, halvings = 2 * 49 * 64 + 64 + 1, 9 * (64 * 128 + 128 * 256) + 128 + 256
    doublings, block = 9 * (256 * 128 + 128 * 64) + 128 + 64, 2 * (9 * 256 * 256 + 256)
    slopes = 1 + 2 + 14 + 2
    expected = ends + halvings + doublings + 14 * block + slopes
    assert count(runs.content("reconresnet", "network_def", config)) == expected == 17_266_452


@runs.of("tscn")
def test_terms_of_tscn(cohort):
    """Untrained, what is between is the mean, and a slice is given back with a quarter of its neighbours in it."""
    parser = runs.content("tscn", None, "train", device="cpu", dataset_dir=str(cohort), features=4, blocks=1)
    graph, weight = parser.get_parsed_content("graph"), parser.get_parsed_content("cycle")
    batch = {key: torch.rand(2, 1, 8, 8) for key in ("above", "slice", "below", "first", "second", "third")}
    found = graph(batch, ["second_fake", "slice_again"])
    torch.testing.assert_close(found["second_fake"], (batch["first"] + batch["third"]) / 2)
    torch.testing.assert_close(found["slice_again"], batch["slice"] / 2 + (batch["above"] + batch["below"]) / 4)
    assert (weight.get_value(), weight.weight, weight.iterations) == (0, 1, 25_000)
    assert parser.get_parsed_content("players")["between"].schedule is weight


@runs.of("dsn")
@pytest.mark.parametrize("waits", [True, False])
def test_edsr_waits_for_dsn(cohort, tmp_path, waits):
    """Until then EDSR is the interpolation that it begins as; the downsampling network learns from the start."""
    small = {"features": 4, "blocks": 1, "graph#networks#dsn#blocks": 1, "lr_patch": [12, 12, 1]}
    small |= {"batch_size": 2, "slice_axis": "SI"}
    small |= {"max_epochs": 1, "epoch_length": 4, "learning_rate": 0.01, "dsn_iterations": 4 if waits else 0}
    runs.run("dsn", ["train"], tmp_path, dataset_dir=cohort, **small)
    network = load_weights(EDSR(4, 1, GaussianProfile((2, 2, 1))), tmp_path / "models" / "model.pt")
    lr = torch.rand(1, 1, 12, 12, 1)
    assert torch.equal(network(lr), network.base(lr)) == waits
    assert any("dsn/downsampling/l1" in line for line in runs.history(tmp_path))
