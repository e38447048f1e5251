"""Two processes with half the batch each follow one process with the whole."""

import json
from functools import partial

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import multiprocessing, nn

from common.data import UnpairedSlabLoader, VolumeCache
from common.engines import AlternatingTrainer, Player
from common.graph import TensorGraph
from common.handlers import LossHistory, ResumableState
from common.losses import LowFrequencyLoss, SquaredSSIMLoss
from common.networks import LinearDegradation, PatchDiscriminator, SlabEncoder, SlabInterpolation, TSRCANDecoder
from tests.engines.games import close_to, spiked

SCALE = (2, 2, 2)
HALF = 3  # iterations, of twice as many


def volumes(key, shape, seed):
    drawn = [torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(2)]
    keys = [key, f"{key}_band"]
    return VolumeCache([{"index": 0}, {"index": 1}], lambda entry: dict.fromkeys(keys, drawn[entry["index"]]), keys)


def trainer_of(folder, resume=False, rank=0):
    torch.manual_seed(rank)  # what the first process begins with decides
    networks = {k: LinearDegradation(SCALE, (0, 0, 0), radius=3, margin=3) for k in ("degradation", "generic")}
    base = SlabInterpolation(3, SCALE, (0, 0, 0))
    networks |= {"encoder": SlabEncoder(3, 4, 2), "decoder": TSRCANDecoder(6, 4, 1, 1, 2, scale=(2, 2), base=base)}
    judge = nn.Sequential(PatchDiscriminator(3, 4, 2), nn.BatchNorm2d(1, eps=1.0))  # statistics of the whole
    networks |= {"judge": judge, "idle": nn.Linear(1, 1)}
    steps = {"fake": ["degradation", "hr_context"], "generic": ["generic", "hr_context"]}
    steps |= {"feature": ["encoder", "fake"], "sr": ["decoder", "feature", "fake"]}
    steps |= {"fake_verdict": ["judge", "fake"], "real_verdict": ["judge", "lr"]}
    adamw = partial(torch.optim.AdamW, lr=0.001, eps=1e-4, weight_decay=0.1)
    looks = {"fool": [1.0, nn.L1Loss(), "fake_verdict", 0.5], "anchor": [1.0, LowFrequencyLoss(1.0), "fake", "generic"]}
    likeness = {"l1": [1.0, nn.L1Loss(), "sr", "hr"], "ssim": [0.5, SquaredSSIMLoss(), "sr", "hr"]}
    verdicts = {"real": [1.0, close_to(1), "real_verdict"], "fake": [1.0, close_to(0), "fake_verdict"]}
    players = {
        "degradation": Player(["degradation"], partial(torch.optim.Adam, lr=0.01, eps=1e-4), looks),
        "generator": Player(["encoder", "decoder", "idle"], adamw, likeness, clip_norm=0.5),
        "judge": Player(["judge"], partial(torch.optim.SGD, lr=0.05, momentum=0.9), verdicts, steps=2),
    }
    pools = volumes("hr", (30, 28, 12), 0), volumes("lr", (14, 16, 5), 9)
    loader = UnpairedSlabLoader(*pools, (12, 12, 3), SCALE, 4, seed=1, device="cpu", margin=3, noise_levels=[0.0])
    handlers = [LossHistory(folder / "history.jsonl"), ResumableState(folder / "state.pt", resume=resume)]
    graph = TensorGraph(networks, steps, ["hr", "hr_context", "lr"])
    return AlternatingTrainer(2, loader, graph, players, HALF, torch.device("cpu"), train_handlers=handlers)


def watch_layouts(trainer):
    """Strides of the gradients of the generator's 2-D weights, as its optimizer finds them, step by step."""
    seen, player = [], trainer.players["generator"]
    player.optimizer.register_step_pre_hook(
        lambda *_: seen.append([p.grad.stride() for p in player.parameters if p.ndim == 4 and p.grad is not None])
    )
    return seen


def overflow(rank):
    """Steps in fp16 of which the second overflows in the second process: weights and scale after each."""
    states = []
    rows = {"x": [1.0, lambda x: (spiked(x) if len(states) == 1 and rank == 1 else x).square().mean(), "y"]}
    player, net = Player(["net"], partial(torch.optim.SGD, lr=0.1), rows), nn.Conv2d(1, 1, 3)
    graph = TensorGraph({"net": net}, {"y": ["net", "hr"]}, ["hr"])
    batches, options = [{"hr": torch.ones(1, 1, 4, 4) + rank}] * 3, {"amp_kwargs": {"dtype": torch.float16}}
    trainer = AlternatingTrainer(1, batches, graph, {"g": player}, None, torch.device("cpu"), amp=True, **options)
    player.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    trainer.on(Events.ITERATION_COMPLETED)(lambda: states.append((net.weight.data.clone(), player.scaler.get_scale())))
    trainer.run()
    return states


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    weights = {}
    for name in ("whole", "resumed"):
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


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_and_resume_exactly(tmp_path):
    """Gradients have the layout of their weights, channels last, without which an optimizer's fused steps are slow."""
    multiprocessing.spawn(work, (tmp_path,), nprocs=2)
    results = first, second = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    trainer = trainer_of(tmp_path / "one")
    layouts, start = watch_layouts(trainer), {k: v.clone() for k, v in trainer.graph.state_dict().items()}
    trainer.run()
    one, whole = history(tmp_path / "one"), history(tmp_path / "whole")
    assert len(one) == 2 * HALF and whole == [pytest.approx(line, abs=1e-5) for line in one]
    for result in results:
        torch.testing.assert_close(result["weights"]["whole"], trainer.graph.state_dict(), rtol=1e-5, atol=1e-5)
        assert result["layouts"] and result["layouts"] == layouts[: len(result["layouts"])]
    assert (36, 1, 12, 4) in layouts[0]  # 4 channels in, 3x3
    for name, value in trainer.graph.named_parameters():
        assert name.startswith(("networks.generic", "networks.idle")) == torch.equal(value, start[name]), name
    for other in (first["weights"]["resumed"], second["weights"]["whole"], second["weights"]["resumed"]):
        torch.testing.assert_close(other, first["weights"]["whole"], rtol=0, atol=0)
    assert whole == history(tmp_path / "resumed")
    # An overflow in one process skips the step in both.
    for (w, s), (v, r) in zip(first["overflow"], second["overflow"], strict=True):
        assert torch.equal(w, v) and s == r and torch.isfinite(w).all()
    weights, scales = zip(*first["overflow"], strict=True)
    assert scales == (64, 32, 32) and torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
