"""Two processes with half the batch each follow one process with the whole."""

import json

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import multiprocessing, nn

from common.data import UnpairedSlabLoader, VolumeCache
from common.engines import AlternatingTrainer, Player
from common.graph import TensorGraph
from common.handlers import LossHistory, ResumableState
from common.losses import AdaptationLoss, LowFrequencyLoss, SquaredSSIMLoss
from common.networks import LinearDegradation, PatchDiscriminator, SlabEncoder, SlabInterpolation, TSRCANDecoder

SCALE = (2, 2, 2)
HALF = 3  # iterations, of twice as many


def volumes(key, shape, seed):
    def load(entry):
        generator = torch.Generator().manual_seed(entry["seed"])
        volume = torch.rand(1, *shape, generator=generator)
        return {key: volume, f"{key}_band": volume}

    return VolumeCache([{"seed": seed}, {"seed": seed + 1}], load, [key, f"{key}_band"])


def trainer_of(folder, resume=False, rank=0):
    torch.manual_seed(rank)  # what the first process begins with decides
    base = SlabInterpolation(3, SCALE, (0, 0, 0))
    networks = {
        "degradation": LinearDegradation(SCALE, (0, 0, 0), radius=3, margin=3),
        "generic": LinearDegradation(SCALE, (0, 0, 0), radius=3, margin=3),
        "encoder": SlabEncoder(3, 4, 2),
        "decoder": TSRCANDecoder(6, 4, 1, 1, 2, scale=(2, 2), base=base),
        "judge": PatchDiscriminator(3, 4, 2),
        "idle": nn.Linear(1, 1),
    }
    steps = {
        "fake": ["degradation", "hr_context"],
        "generic": ["generic", "hr_context"],
        "feature": ["encoder", "fake"],
        "sr": ["decoder", "feature", "fake"],
        "fake_verdict": ["judge", "fake"],
        "real_verdict": ["judge", "lr"],
    }

    def term(name, loss, *inputs, weight=1.0):
        return name, [weight, loss, *inputs]

    players = {
        "degradation": Player(
            ["degradation"],
            lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-4),
            dict(
                [
                    term("fool", AdaptationLoss(), "fake_verdict"),
                    term("anchor", LowFrequencyLoss(1.0), "fake", "generic"),
                ]
            ),
        ),
        "generator": Player(
            ["encoder", "decoder", "idle"],
            lambda p: torch.optim.AdamW(p, lr=0.001, eps=1e-4, weight_decay=0.1),
            dict([term("l1", nn.L1Loss(), "sr", "hr"), term("ssim", SquaredSSIMLoss(), "sr", "hr", weight=0.5)]),
            clip_norm=0.5,
        ),
        "judge": Player(
            ["judge"],
            lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
            dict(
                [term("real", lambda v: (v - 1).square(), "real_verdict"), term("fake", torch.square, "fake_verdict")]
            ),
            steps=2,
        ),
    }
    loader = UnpairedSlabLoader(
        volumes("hr", (30, 28, 12), 0), volumes("lr", (14, 16, 5), 9), (12, 12, 3), SCALE, 3, 4, seed=1, device="cpu"
    )
    handlers = [LossHistory(folder / "history.jsonl"), ResumableState(folder / "state.pt", resume=resume)]
    graph = TensorGraph(networks, steps, ["hr", "hr_context", "lr"])
    return AlternatingTrainer(
        torch.device("cpu"), 2, loader, graph, players, epoch_length=HALF, train_handlers=handlers
    )


def watch_layouts(trainer):
    """Strides of the gradients of the generator's 2-D weights, as its optimizer finds them, step by step."""
    seen = []

    def look(optimizer, *_):
        weights = [p for group in optimizer.param_groups for p in group["params"] if p.ndim == 4 and p.grad is not None]
        seen.append([tuple(p.grad.stride()) for p in weights])

    trainer.players["generator"].optimizer.register_step_pre_hook(look)
    return seen


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


def overflow(rank):
    """Steps in fp16 of which the second overflows in the second process: weights and scale after each."""
    calls = []

    def loss(x):
        calls.append(0)
        return (Spike.apply(x) if len(calls) == 2 and rank == 1 else x).square().mean()

    player = Player(["net"], lambda p: torch.optim.SGD(p, lr=0.1), {"x": [1.0, loss, "y"]})
    graph = TensorGraph({"net": nn.Conv2d(1, 1, 3)}, {"y": ["net", "hr"]}, ["hr"])
    batches = [{"hr": torch.ones(1, 1, 4, 4) + rank}] * 3
    options = {"amp": True, "amp_kwargs": {"dtype": torch.float16}}
    trainer = AlternatingTrainer(torch.device("cpu"), 1, batches, graph, {"g": player}, **options)
    player.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    states = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda _: states.append((graph.networks["net"].weight.detach().clone(), player.scaler.get_scale())),
    )
    trainer.run()
    return states


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    weights = {}
    for name in ("whole", "resumed"):
        (folder / name).mkdir(exist_ok=True)
        trainer = trainer_of(folder / name, rank=rank)
        layouts = watch_layouts(trainer)
        if name == "resumed":
            trainer.add_event_handler(Events.EPOCH_COMPLETED(once=1), trainer.terminate)
            trainer.run()
            assert trainer.state.iteration == HALF
            trainer = trainer_of(folder / name, resume=True, rank=rank)
        trainer.run()
        weights[name] = trainer.graph.state_dict()
    torch.save({"weights": weights, "overflow": overflow(rank), "layouts": layouts}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(work, (folder,), nprocs=2)
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_losses_and_weights_are_those_of_one_process(two, tmp_path):
    folder, results = two
    trainer = trainer_of(tmp_path)
    start = {name: value.clone() for name, value in trainer.graph.state_dict().items()}
    trainer.run()
    one, both = history(tmp_path), history(folder / "whole")
    assert len(one) == len(both) == 2 * HALF
    for a, b in zip(one, both, strict=True):
        assert a.keys() == b.keys() and b == pytest.approx(a, abs=1e-5)
    for name, value in trainer.graph.state_dict().items():
        for rank in range(2):
            assert torch.allclose(results[rank]["weights"]["whole"][name], value, atol=1e-5), name
    for name, value in trainer.graph.named_parameters():
        still = name.startswith(("networks.generic", "networks.idle"))
        assert still == torch.equal(value, start[name]), name


def test_gradients_keep_their_layout_when_they_are_averaged(two, tmp_path):
    """That of their weights, channels last, without which an optimizer's fused steps are slow."""
    trainer = trainer_of(tmp_path)
    one = watch_layouts(trainer)
    trainer.run()
    for both in (results["layouts"] for results in two[1]):
        assert both and both == one[: len(both)]
    assert (36, 1, 12, 4) in one[0]  # 4 channels in, 3x3


def test_both_processes_end_with_the_same_weights(two):
    _, (first, second) = two
    for run in ("whole", "resumed"):
        for name, value in first["weights"][run].items():
            assert torch.equal(value, second["weights"][run][name]), name


def test_two_processes_resume_exactly(two):
    folder, (first, _) = two
    for name, value in first["weights"]["whole"].items():
        assert torch.equal(value, first["weights"]["resumed"][name]), name
    assert history(folder / "whole") == history(folder / "resumed")


def test_an_overflow_in_one_process_skips_the_step_in_both(two):
    _, (first, second) = two
    for (w, s), (v, r) in zip(first["overflow"], second["overflow"], strict=True):
        assert torch.equal(w, v) and s == r and torch.isfinite(w).all()
    weights, scales = zip(*first["overflow"], strict=True)
    assert scales == (64, 32, 32)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
