"""The trainer against games written out by hand, and what each player's turn may touch."""

import copy
import shutil
from functools import partial

import pytest
import torch
from ignite.engine import Events
from torch import nn

from common.engines import AlternatingTrainer, Player
from common.graph import TensorGraph
from common.losses import LeastSquaresLoss
from common.networks import RDN, AxisInterpolation

STEPS = {
    "fake": ["down", "hr"],
    "back": ["up", "fake"],
    "fake_verdict": ["judge", "fake"],
    "real_verdict": ["judge", "lr"],
}


class Net(nn.Module):
    """A convolution and a bend; counts its calls and keeps what it saw."""

    def __init__(self, outputs=2):
        super().__init__()
        self.layer = nn.Conv2d(2, outputs, 3, padding=1)
        self.calls, self.dtype, self.saw_a_graph = 0, None, []

    def forward(self, x):
        self.calls += 1
        self.saw_a_graph.append(x.requires_grad)
        y = torch.tanh(self.layer(x))
        self.dtype = y.dtype
        return y


class Batches:
    """Without end, each batch a function of how many were before it."""

    def __init__(self):
        self.iteration = 0

    def set_iteration(self, iteration):
        self.iteration = iteration

    def __iter__(self):
        while True:
            self.iteration += 1
            generator = torch.Generator().manual_seed(self.iteration)
            yield {key: torch.randn(3, 2, 6, 5, generator=generator) for key in ("hr", "lr")}


def networks_of(seed=0):
    torch.manual_seed(seed)
    return {"down": Net(), "up": Net(), "judge": Net(outputs=1)}


def close_to(target):
    return lambda verdict: (verdict - target).square().mean()


def l1(x, y):
    return (x - y).abs().mean()


def term(name, loss, *inputs, weight=1.0):
    return name, [weight, loss, *inputs]


def player_of(networks, optimizer, rows, **options):
    return Player(networks, optimizer, dict(rows), **options)


GENERATOR = [term("cycle", l1, "back", "hr"), term("fool", close_to(1), "fake_verdict", weight=0.5)]
JUDGE = [term("real", close_to(1), "real_verdict"), term("fake", close_to(0), "fake_verdict")]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.5)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01, eps=1e-3)


def players_of(order=("generator", "judge"), optimizer=sgd, **options):
    """Players in order; ``options`` are further arguments by player."""
    rows = {"generator": (["down", "up"], GENERATOR), "judge": (["judge"], JUDGE)}
    return {name: player_of(rows[name][0], optimizer, rows[name][1], **options.get(name, {})) for name in order}


def trainer_of(players, networks=None, iterations=4, steps=STEPS, **options):
    graph = TensorGraph(networks or networks_of(), steps)
    return AlternatingTrainer(torch.device("cpu"), 1, Batches(), graph, players, epoch_length=iterations, **options)


def values_of(networks):
    return {f"{n}.{k}": v.detach().clone() for n, net in networks.items() for k, v in net.named_parameters()}


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def game_by_hand(order, optimizer, iterations, repeat=1):
    """The game with an explicit detach, every forward pass written out."""
    net = networks_of()
    generator = optimizer([*net["down"].parameters(), *net["up"].parameters()])
    judge = optimizer(list(net["judge"].parameters()))
    losses = []
    for _, batch in zip(range(iterations), Batches(), strict=False):
        hr, lr = batch["hr"], batch["lr"]
        fake = net["down"](hr)
        for player in order:
            for _ in range(repeat):
                if player == "generator":
                    fake = net["down"](hr)
                    cycle, fool = l1(net["up"](fake), hr), close_to(1)(net["judge"](fake))
                    step(generator, cycle + 0.5 * fool)
                else:
                    real, false = close_to(1)(net["judge"](lr)), close_to(0)(net["judge"](fake.detach()))
                    step(judge, real + false)
        losses.append([cycle.item(), fool.item(), real.item(), false.item()])
    return values_of(net), losses


@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("order", [("generator", "judge"), ("judge", "generator")])
def test_a_game_is_the_one_written_by_hand(order, optimizer, repeat):
    players = players_of(order, optimizer, generator={"steps": repeat}, judge={"steps": repeat})
    trainer = trainer_of(players, iterations=5)
    losses = []
    names = ["generator/cycle", "generator/fool", "judge/real", "judge/fake"]

    @trainer.on(Events.ITERATION_COMPLETED)
    def keep(engine):
        out = engine.state.output
        losses.append([out[name] for name in names])
        assert out["generator/total"] == pytest.approx(out["generator/cycle"] + 0.5 * out["generator/fool"])

    trainer.run()
    expected, by_hand = game_by_hand(order, optimizer, 5, repeat)
    for name, value in values_of(trainer.graph.networks).items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    assert torch.allclose(torch.tensor(losses), torch.tensor(by_hand), atol=1e-6)
    start = values_of(networks_of())
    assert all((expected[name] - start[name]).abs().max() > 1e-3 for name in start)


def test_a_gradient_takes_every_path_to_its_player():
    """Up's turn has detached ``back``; the judge's has computed ``again`` from it; down's must not use that."""
    steps = STEPS | {"again": ["down", "back"], "again_verdict": ["judge", "again"]}
    players = {
        "up": player_of(["up"], sgd, [term("cycle", l1, "back", "hr")]),
        "judge": player_of(["judge"], sgd, [term("again", close_to(0), "again_verdict"), JUDGE[0]]),
        "down": player_of(
            ["down"], sgd, [term("again", close_to(1), "again_verdict"), term("same", l1, "again", "fake")]
        ),
    }
    trainer = trainer_of(players, steps=steps)
    trainer.run()

    net = networks_of()
    down, up, judge = (sgd(list(net[name].parameters())) for name in ("down", "up", "judge"))
    for _, batch in zip(range(4), Batches(), strict=False):
        hr, lr = batch["hr"], batch["lr"]
        back = net["up"](net["down"](hr).detach())
        step(up, l1(back, hr))
        again = net["down"](back.detach()).detach()
        step(judge, close_to(0)(net["judge"](again)) + close_to(1)(net["judge"](lr)))
        fake = net["down"](hr)
        again = net["down"](net["up"](fake))
        step(down, close_to(1)(net["judge"](again)) + l1(again, fake))
    expected = values_of(net)
    for name, value in values_of(trainer.graph.networks).items():
        assert torch.allclose(value, expected[name], atol=1e-6), name


@pytest.mark.parametrize("order", [("generator", "judge"), ("judge", "generator")])
def test_the_generators_run_once_an_iteration_for_all_players(order):
    steps = STEPS | {"again": ["down", "back"], "again_verdict": ["judge", "again"]}
    players = players_of(order)
    players["generator"].losses.terms["again"] = (1.0, close_to(1), ("again_verdict",))
    players["judge"].losses.terms["again"] = (1.0, close_to(0), ("again_verdict",))
    trainer = trainer_of(players, steps=steps, iterations=3)
    trainer.run()
    # down is used twice in the graph, up once; judge sees lr once, and both images with and without their graph.
    assert {name: net.calls for name, net in trainer.graph.networks.items()} == {"down": 6, "up": 3, "judge": 15}


@pytest.mark.parametrize("order", [("generator", "judge"), ("judge", "generator")])
def test_a_discriminator_sees_images_without_their_graph(order):
    trainer = trainer_of(players_of(order), iterations=1)
    seen = trainer.graph.networks["judge"].saw_a_graph
    by_player = {}
    for name, player in trainer.players.items():
        player.optimizer.register_step_pre_hook(lambda *_, name=name: by_player.update({name: seen[:]}) or seen.clear())
    trainer.run()
    assert by_player == {"generator": [True], "judge": [False, False]}


@pytest.mark.parametrize(
    ("repeat", "calls"), [({"generator": {"steps": 2}}, (8, 8, 16)), ({"judge": {"steps": 2}}, (4, 4, 20))]
)
def test_further_steps_compute_again_what_the_player_itself_has_changed(repeat, calls):
    trainer = trainer_of(players_of(("generator", "judge"), **repeat), iterations=4)
    trainer.run()
    # Each step of the generator is a pass of down, up and judge(fake); each of the judge's, of judge(fake), judge(lr).
    assert tuple(trainer.graph.networks[name].calls for name in ("down", "up", "judge")) == calls


@pytest.mark.parametrize("order", [("generator", "judge"), ("judge", "generator")])
def test_a_turn_touches_its_own_networks_only(order):
    trainer = trainer_of(players_of(order), iterations=2)
    networks = trainer.graph.networks
    turns = []

    for name, player in trainer.players.items():

        def before(optimizer, *_, name=name, own=player.networks):
            for network, module in networks.items():
                for parameter in module.parameters():
                    assert (parameter.grad is None) == (network not in own), f"{name}'s turn, {network}"
            turns.append((name, values_of(networks)))

        def after(optimizer, *_, name=name, own=player.networks):
            _, then = turns[-1]
            for key, value in values_of(networks).items():
                assert torch.equal(value, then[key]) == (key.split(".")[0] not in own), f"{name}'s turn, {key}"

        player.optimizer.register_step_pre_hook(before)
        player.optimizer.register_step_post_hook(after)
    trainer.run()
    assert [name for name, _ in turns] == [*order, *order]
    assert all(p.grad is None for p in trainer.graph.parameters())


class Never(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, *_):
        raise AssertionError("a step that only terms of weight 0 need was computed")


def test_a_term_of_weight_0_computes_no_step_and_moves_no_weight():
    networks = networks_of() | {"idle": Never()}
    rows = [*GENERATOR, term("off", l1, "unused", "hr", weight=0.0)]
    for decay in (0.0, 0.1):

        def optimizer(parameters, decay=decay):
            return torch.optim.AdamW(parameters, lr=0.01, weight_decay=decay)

        players = {"generator": player_of(["down", "up", "idle"], optimizer, rows), "judge": players_of()["judge"]}
        trainer = trainer_of(players, networks, 2, STEPS | {"unused": ["idle", "back"]})
        trainer.run()
        assert networks["idle"].weight.item() == 1
        assert set(trainer.state.output) == {
            "generator/cycle", "generator/fool", "generator/total", "judge/real", "judge/fake", "judge/total",
        }  # fmt: skip


def test_a_player_that_an_overlay_sets_to_none_is_left_out():
    trainer = trainer_of({**players_of(), "degradation": None}, iterations=1)
    trainer.run()
    assert list(trainer.players) == ["generator", "judge"]


def test_schedulers_step_once_an_iteration_however_many_steps_a_player_takes():
    rates = []

    def halving(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda iteration: 0.5**iteration)

    options = {"generator": {"steps": 3, "scheduler": halving}, "judge": {"scheduler": halving}}
    trainer = trainer_of(players_of(**options), iterations=4)
    for player in trainer.players.values():
        player.optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    trainer.run()
    assert rates == [0.1 * 0.5**i for i in range(4) for _ in range(4)]


def plateau(**options):
    return lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)


def scripted(losses):
    """A loss that takes the values in turn, whatever the network does."""
    values = iter(losses)
    return lambda verdict: next(values) + 0 * verdict.sum()


def run_epochs(players, epochs, length):
    """Learning rates of each player in each epoch of a run."""
    graph = TensorGraph(networks_of(), STEPS)
    trainer = AlternatingTrainer(torch.device("cpu"), epochs, Batches(), graph, players, epoch_length=length)
    rates = {name: [] for name in players}

    @trainer.on(Events.ITERATION_COMPLETED)
    def keep(engine):
        for name, player in players.items():
            # The scheduler has been stepped where an epoch has ended, so this is for the next.
            rates[name].append(player.optimizer.param_groups[0]["lr"])

    trainer.run()
    return trainer, rates


def test_a_plateau_is_one_of_the_means_of_epochs():
    """The means fall until epoch 3 and not after; the last losses of the epochs and the least do otherwise."""
    epochs = [(6, 2, 4), (5, 1, 3), (0, 5, 1), (2, 3, 1), (6, 0, 0.5), (3, 2.7, 0.3), (1, 1, 7), (9, 9, 9), (0, 0, 0)]
    means = [sum(epoch) / 3 for epoch in epochs]
    rows = [term("scripted", scripted(loss for epoch in epochs for loss in epoch), "fake_verdict")]
    player = player_of(["judge"], sgd, rows, scheduler=plateau(factor=0.1, patience=2))
    trainer, rates = run_epochs({"judge": player}, len(epochs), 3)
    # Epochs 4 to 6 have not been better than epoch 3 (which makes more than 2), and 7 to 8 only two more.
    assert [min(means[:i]) > mean for i, mean in enumerate(means) if i] == [True, True] + [False] * 5 + [True]
    assert rates["judge"] == pytest.approx([0.1] * 17 + [0.01] * 10)
    assert trainer.state.epoch == len(epochs)


def falling_of(scale=0.1, stop_below=None, start=0.1):
    """A player whose rate falls by a factor of ``scale`` after every epoch but the first, and options of it."""
    losses = scripted(1.0 for _ in range(100))
    return player_of(
        ["judge"],
        lambda p: torch.optim.SGD(p, lr=start),
        [term("scripted", losses, "real_verdict")],
        scheduler=plateau(factor=scale, patience=0),
        stop_below=stop_below,
    )


def test_training_ends_with_the_epoch_in_which_the_rate_has_fallen_far_enough():
    trainer, rates = run_epochs({"judge": falling_of(stop_below=2e-3)}, 10, 2)
    assert trainer.state.epoch == 3 and trainer.state.iteration == 6
    assert rates["judge"] == pytest.approx([0.1] * 3 + [0.01] * 2 + [0.001])
    # At the bound itself a player goes on.
    trainer, _ = run_epochs({"judge": falling_of(0.5, stop_below=0.125, start=0.5)}, 10, 2)
    assert trainer.state.epoch == 4
    trainer, _ = run_epochs({"judge": falling_of()}, 5, 2)
    assert trainer.state.epoch == 5


@pytest.mark.parametrize(("stop_below", "epochs"), [(2e-5, 5), (None, 7)])
def test_training_goes_on_until_every_player_has_finished(stop_below, epochs):
    generator = player_of(
        ["down", "up"],
        sgd,
        [term("scripted", scripted(1.0 for _ in range(100)), "back")],
        scheduler=plateau(factor=0.1, patience=0),
        stop_below=stop_below,
    )
    trainer, rates = run_epochs({"generator": generator, "judge": falling_of(stop_below=2e-3)}, 7, 2)
    assert trainer.state.epoch == epochs and len(rates["judge"]) == 2 * epochs


def test_clipping_bounds_the_gradient_of_one_player_and_keeps_its_direction():
    def gradients_of(clip):
        trainer = trainer_of(players_of(generator={"clip_norm": clip}), iterations=3)
        found = {"generator": [], "judge": []}
        for name, player in trainer.players.items():
            player.optimizer.register_step_pre_hook(
                lambda o, *_, name=name: found[name].append(
                    torch.cat([p.grad.flatten() for group in o.param_groups for p in group["params"]])
                )
            )
        trainer.run()
        return found

    free, clipped = gradients_of(None), gradients_of(0.01)
    assert all(g.norm() > 0.02 for g in free["generator"] + clipped["judge"])
    assert all(g.norm().item() == pytest.approx(0.01, rel=1e-3) for g in clipped["generator"])
    first, bounded = free["generator"][0], clipped["generator"][0]
    assert torch.allclose(bounded, first * 0.01 / first.norm(), rtol=1e-3, atol=1e-7)


def test_bf16_computes_networks_in_bf16_and_losses_in_float32():
    seen = []

    def loss(*tensors):
        seen.extend(t.dtype for t in tensors)
        return tensors[0].abs().mean()

    players = {
        "generator": player_of(["down", "up"], adam, [term("cycle", loss, "back", "hr"), GENERATOR[1]]),
        "judge": players_of()["judge"],
    }
    trainer = trainer_of(players, amp=True, amp_kwargs={"dtype": torch.bfloat16})
    trainer.run()
    assert set(seen) == {torch.float32}
    assert {net.dtype for net in trainer.graph.networks.values()} == {torch.bfloat16}
    assert {p.dtype for p in trainer.graph.parameters()} == {torch.float32}
    assert all(isinstance(value, float) for value in trainer.state.output.values())


@pytest.mark.parametrize(("capability", "warned"), [("AVX2", 1), ("AVX512", 0)])
def test_a_processor_that_emulates_bf16_is_told(capability, warned, monkeypatch, recwarn):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    trainer_of(players_of(), amp=False)
    trainer_of(players_of(), amp=True, amp_kwargs={"dtype": torch.bfloat16})
    assert len([w for w in recwarn if "--amp false" in str(w.message)]) == warned


def trainer_in_fp16(players, scale=128.0):
    trainer = trainer_of(players, iterations=1, amp=True, amp_kwargs={"dtype": torch.float16})
    for player in players.values():
        assert player.scaler.is_enabled()
        player.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return trainer


def test_fp16_scales_the_loss_of_each_player_and_unscales_its_gradient():
    options = {"generator": {"clip_norm": 10.0}}  # clips scaled gradients and no others
    half, full = trainer_in_fp16(players_of(**options)), trainer_of(players_of(**options), iterations=1)
    half.run()
    full.run()
    start, expected = values_of(networks_of()), values_of(full.graph.networks)
    for name, value in values_of(half.graph.networks).items():
        moved = (expected[name] - start[name]).abs().max()
        assert moved > 1e-3 and (value - expected[name]).abs().max() < 0.05 * moved, name


FUSED = partial(torch.optim.Adam, lr=0.01)  # where the trainer asks for it


@pytest.mark.parametrize("first", [True, False])
def test_a_state_goes_on_in_another_precision(first):
    """From float16, whose optimizers are fused, to bfloat16, and the other way."""
    dtypes = [torch.float16, torch.bfloat16]
    before, after = (
        trainer_of(players_of(optimizer=FUSED), amp=True, amp_kwargs={"dtype": dtype})
        for dtype in (dtypes if first else dtypes[::-1])
    )

    def steps(player):
        (count,) = {float(state["step"]) for state in player.optimizer.state.values()}
        return count

    before.run()
    for name, player in after.players.items():
        player.load_state_dict(copy.deepcopy(before.players[name].state_dict()))
    after.run()
    for name, player in after.players.items():
        assert player.optimizer.param_groups[0]["fused"] == (None if first else True)
        assert steps(player) > steps(before.players[name]) > 0  # in float16 the first may overflow


class Spike(torch.autograd.Function):
    """The same, with a gradient that overflows."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


@pytest.mark.parametrize("optimizer", [sgd, FUSED], ids=["sgd", "fused"])
def test_an_overflow_in_fp16_skips_that_players_step_and_lowers_its_scale(optimizer):
    rows = [term("spike", lambda x: Spike.apply(x).mean(), "back")]
    judge = players_of(optimizer=optimizer)["judge"]
    trainer = trainer_in_fp16({"generator": player_of(["down", "up"], optimizer, rows), "judge": judge})
    before = values_of(trainer.graph.networks)
    trainer.run()
    for name, value in values_of(trainer.graph.networks).items():
        assert torch.equal(value, before[name]) == (not name.startswith("judge")), name
    assert {name: player.scaler.get_scale() for name, player in trainer.players.items()} == {
        "generator": 64, "judge": 128,
    }  # fmt: skip


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(bad):
    calls = []

    def loss(x):
        calls.append(0)
        return x.mean() * (bad if len(calls) == 3 else 1.0)

    players = players_of()
    players["judge"].losses.terms["odd"] = (1.0, loss, ("fake_verdict",))
    trainer = trainer_of(players, iterations=5)
    with pytest.raises(FloatingPointError, match=r"iteration 3: not finite: judge/odd, judge/total\. Lower"):
        trainer.run()


def test_the_loader_is_told_where_it_is_at_every_epoch():
    class Told(Batches):
        told = ()

        def set_iteration(self, iteration):
            self.told = (*self.told, iteration)
            super().set_iteration(iteration)

    loader = Told()
    graph = TensorGraph(networks_of(), STEPS)
    trainer = AlternatingTrainer(torch.device("cpu"), 3, loader, graph, players_of(), epoch_length=2)
    trainer.run()
    assert loader.told == (0, 2, 4) and trainer.state.iteration == 6


def test_what_a_player_cannot_do_is_said():
    def error_of(match, make):
        with pytest.raises(ValueError, match=match):
            make()

    error_of("at least 1 step", lambda: player_of(["up"], sgd, GENERATOR, steps=0))
    error_of("needs networks", lambda: player_of([], sgd, GENERATOR))
    error_of(r"player 'g': .*no network 'upp'; known: down, up, judge", lambda: trainer_of({"g": _player("upp")}))
    error_of(
        r"player 'g', term 'x': its input 'bakc' .*known: hr, lr, fake, back",
        lambda: trainer_of({"g": player_of(["up"], sgd, [term("x", l1, "bakc", "hr")])}),
    )
    error_of(r"players 'g' and 'd' both train .*'up'", lambda: trainer_of({"g": _player("up"), "d": _player("up")}))
    trainer = trainer_of(players_of())
    trainer.data_loader = [{"hr": torch.rand(1, 2, 6, 5)}]
    error_of(r"the graph needs \['lr'\].*\['hr'\]", trainer.run)


def _player(network):
    return player_of([network], sgd, copy.deepcopy(GENERATOR))


def compiled_or_not(compile):
    """A generator that adds to an interpolation, and its judge, whose turns share a forward pass."""
    torch.manual_seed(0)
    networks = {
        "sr_net": RDN(4, 4, 1, 1, 4, base=AxisInterpolation(4, 1.5)),
        "judge": nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3)),
    }
    steps = {"fake": ["sr_net", "lr"], "fake_verdict": ["judge", "fake"], "verdict": ["judge", "hr"]}
    l1, real, fake = nn.L1Loss(), LeastSquaresLoss(1.0), LeastSquaresLoss(0.0)
    players = {
        "judge": Player(["judge"], adam, {"real": [1.0, real, "verdict"], "fake": [1.0, fake, "fake_verdict"]}),
        "sr_net": Player(["sr_net"], adam, {"l1": [1.0, l1, "fake", "hr"], "fool": [0.1, real, "fake_verdict"]}),
    }
    batches = [{"lr": torch.rand(1, 1, 8, 4), "hr": torch.rand(1, 1, 8, 16)} for _ in range(3)]
    graph = TensorGraph(networks, steps, ["lr", "hr"])
    trainer = AlternatingTrainer(torch.device("cpu"), 1, batches, graph, players, compile=compile)
    outputs = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(dict(engine.state.output)))
    return trainer, outputs


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def test_compiled_networks_keep_the_names_of_their_weights():
    (plain, _), (compiled, _) = compiled_or_not(False), compiled_or_not("true")
    assert list(compiled.graph.state_dict()) == list(plain.graph.state_dict())
    for trainer, expected in ((plain, False), (compiled, True)):
        networks = trainer.graph.networks.values()
        assert {network._compiled_call_impl is not None for network in networks} == {expected}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_networks_are_trained_the_same():
    weights, history = [], []
    for compile in (False, True):
        trainer, outputs = compiled_or_not(compile)
        trainer.run()
        weights.append(trainer.graph.state_dict())
        history.append(outputs)
    assert len(history[0]) == 3
    for plain, compiled in zip(*history, strict=True):
        assert compiled == pytest.approx(plain, abs=1e-5)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)
