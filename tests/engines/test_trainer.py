"""The trainer against games written out by hand, and what each player's turn may touch."""

import copy
from functools import partial
from itertools import islice

import pytest
import torch
from ignite.engine import Events
from monai.handlers import EarlyStopHandler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from common.engines import AlternatingTrainer, ConstantThenLinear, Player, RunFolder
from common.graph import TensorGraph
from tests.engines.games import Batches, close_to, spiked
from tests.refused import refused

ORDERS = [("generator", "judge"), ("judge", "generator")]
STEPS = {"fake": ["down", "hr"], "back": ["up", "fake"], "verdict": ["judge", "fake"], "real": ["judge", "lr"]}
AGAIN = STEPS | {"again": ["down", "back"], "again_verdict": ["judge", "again"]}
ADAM = partial(torch.optim.Adam, lr=0.01)  # fused where the trainer asks for it
BF16 = {"amp": True, "amp_kwargs": {"dtype": torch.bfloat16}}
FP16 = {"amp": True, "amp_kwargs": {"dtype": torch.float16}}


class Net(nn.Module):
    def __init__(self, outputs=2):
        super().__init__()
        self.layer = nn.Conv2d(2, outputs, 3, padding=1)
        self.dtypes, self.saw_a_graph = set(), []

    def forward(self, x):
        self.saw_a_graph.append(x.requires_grad)
        y = torch.tanh(self.layer(x))
        self.dtypes.add(y.dtype)
        return y


def networks_of():
    torch.manual_seed(0)
    return {"down": Net(), "up": Net(), "judge": Net(outputs=1)}


l1 = nn.functional.l1_loss
GENERATOR = {"cycle": [1.0, l1, "back", "hr"], "fool": [0.5, close_to(1), "verdict"]}
JUDGE = {"real": [1.0, close_to(1), "real"], "fake": [1.0, close_to(0), "verdict"]}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.5)


def players_of(order=ORDERS[0], optimizer=sgd, **options):
    rows = {"generator": (["down", "up"], GENERATOR), "judge": (["judge"], JUDGE)}
    return {name: Player(rows[name][0], optimizer, rows[name][1], **options.get(name, {})) for name in order}


def trainer_of(players, networks=None, iterations=4, steps=STEPS, epochs=1, batches=None, **options):
    graph, batches = TensorGraph(networks or networks_of(), steps), batches or Batches(3, 2, 6, 5)
    return AlternatingTrainer(epochs, batches, graph, players, iterations, torch.device("cpu"), **options)


def values_of(networks):
    return {f"{n}.{k}": v.detach().clone() for n, net in networks.items() for k, v in net.named_parameters()}


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def game_by_hand(order, optimizer, iterations, repeat):
    net, losses = networks_of(), []
    generator = optimizer([*net["down"].parameters(), *net["up"].parameters()])
    judge = optimizer(list(net["judge"].parameters()))
    for hr, lr in islice(map(dict.values, Batches(3, 2, 6, 5)), iterations):
        fake = net["down"](hr)
        for player in [name for name in order for _ in range(repeat)]:
            if player == "generator":
                fake = net["down"](hr)
                cycle, fool = l1(net["up"](fake), hr), close_to(1)(net["judge"](fake))
                step(generator, cycle + 0.5 * fool)
            else:
                real, false = close_to(1)(net["judge"](lr)), close_to(0)(net["judge"](fake.detach()))
                step(judge, real + false)
        terms = {"generator/cycle": cycle, "generator/fool": fool, "generator/total": cycle + 0.5 * fool}
        terms |= {"judge/real": real, "judge/fake": false, "judge/total": real + false}
        losses.append({name: loss.item() for name, loss in terms.items()})
        losses[-1]["loss"] = losses[-1]["generator/total"] + losses[-1]["judge/total"]  # for handlers of others
        players = {"generator": generator, "judge": judge}
        losses[-1] |= {f"{name}/learning_rate": player.param_groups[0]["lr"] for name, player in players.items()}
    return values_of(net), losses


@pytest.mark.parametrize(("first", "optimizer", "repeat"), [(0, sgd, 1), (1, ADAM, 1), (0, ADAM, 2), (1, sgd, 2)])
def test_a_game_is_the_one_written_by_hand(first, optimizer, repeat):
    players = players_of(ORDERS[first], optimizer, generator={"steps": repeat}, judge={"steps": repeat})
    trainer, outputs = trainer_of(players, iterations=5), []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.append(*engine.state.output))
    trainer.run()
    expected, by_hand = game_by_hand(ORDERS[first], optimizer, 5, repeat)
    torch.testing.assert_close(values_of(trainer.graph.networks), expected, rtol=1e-5, atol=1e-6)
    assert outputs == [pytest.approx(losses, rel=1e-5, abs=1e-6) for losses in by_hand]
    start = values_of(networks_of())
    assert all((expected[name] - start[name]).abs().max() > 1e-3 for name in start)


def test_a_gradient_takes_every_path_to_its_player():
    """Up's turn has detached ``back``; the judge's has computed ``again`` from it; down's must not use that."""
    rows = {"up": {"cycle": GENERATOR["cycle"]}}
    rows |= {"judge": {"again": [1.0, close_to(0), "again_verdict"], "real": JUDGE["real"]}}
    rows |= {"down": {"again": [1.0, close_to(1), "again_verdict"], "same": [1.0, l1, "again", "fake"]}}
    trainer = trainer_of({name: Player([name], sgd, terms) for name, terms in rows.items()}, steps=AGAIN)
    trainer.run()
    net = networks_of()
    down, up, judge = (sgd(list(net[name].parameters())) for name in ("down", "up", "judge"))
    for hr, lr in islice(map(dict.values, Batches(3, 2, 6, 5)), 4):
        back = net["up"](net["down"](hr).detach())
        step(up, l1(back, hr))
        again = net["down"](back.detach()).detach()
        step(judge, close_to(0)(net["judge"](again)) + close_to(1)(net["judge"](lr)))
        fake = net["down"](hr)
        again = net["down"](net["up"](fake))
        step(down, close_to(1)(net["judge"](again)) + l1(again, fake))
    torch.testing.assert_close(values_of(trainer.graph.networks), values_of(net), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("order", "repeat", "calls"),
    [
        (ORDERS[0], {}, [2, 1, 5]),
        (ORDERS[1], {}, [2, 1, 5]),
        (ORDERS[0], {"generator": {"steps": 2}}, [4, 2, 7]),  # what the player itself has changed is computed again
        (ORDERS[0], {"judge": {"steps": 2}}, [2, 1, 8]),
    ],
)
def test_networks_run_once_an_iteration_for_all_players(order, repeat, calls):
    """down twice in the graph, up once; judge sees lr once, and both images with and without their graph."""
    players = players_of(order, **repeat)
    players["generator"].losses.terms["again"] = (1.0, close_to(1), ("again_verdict",))
    players["judge"].losses.terms["again"] = (1.0, close_to(0), ("again_verdict",))
    trainer = trainer_of(players, steps=AGAIN, iterations=3)
    trainer.run()
    assert [len(net.saw_a_graph) for net in trainer.graph.networks.values()] == [3 * count for count in calls]


@pytest.mark.parametrize("order", ORDERS)
def test_a_turn_touches_its_own_networks_only(order):
    """And a discriminator, in its own, sees images without their graph."""
    trainer, turns, then = trainer_of(players_of(order), iterations=2), [], {}
    networks = trainer.graph.networks
    for name, player in trainer.players.items():

        def before(*_, name=name, own=player.networks):
            for network, module in networks.items():
                assert {p.grad is None for p in module.parameters()} == {network not in own}, (name, network)
            turns.append((name, networks["judge"].saw_a_graph))
            networks["judge"].saw_a_graph = []
            then.update(values_of(networks))

        def after(*_, name=name, own=player.networks):
            for key, value in values_of(networks).items():
                assert torch.equal(value, then[key]) == (key.split(".")[0] not in own), (name, key)

        player.optimizer.register_step_pre_hook(before)
        player.optimizer.register_step_post_hook(after)
    trainer.run()
    seen = {"generator": [True], "judge": [False, False]}
    assert turns == [(name, seen[name]) for name in (*order, *order)]
    assert all(p.grad is None for p in trainer.graph.parameters())


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_what_an_overlay_turns_off_computes_no_step_and_moves_no_weight(decay):
    """A term by the weight 0, a player by None."""
    networks, adamw = networks_of() | {"idle": nn.PReLU()}, partial(torch.optim.AdamW, lr=0.01, weight_decay=decay)
    networks["idle"].register_forward_pre_hook(lambda *_: pytest.fail("what only terms of weight 0 need was computed"))
    rows = GENERATOR | {"off": [0.0, l1, "unused", "hr"]}
    players = players_of() | {"generator": Player(["down", "up", "idle"], adamw, rows), "degradation": None}
    trainer = trainer_of(players, networks, 2, STEPS | {"unused": ["idle", "back"]})
    trainer.run()
    assert networks["idle"].weight.item() == 0.25 and list(trainer.players) == ["generator", "judge"]
    terms = {
        "generator": {"cycle", "fool", "total", "learning_rate"},
        "judge": {"real", "fake", "total", "learning_rate"},
    }
    assert set(trainer.state.output[0]) == {"loss", *(f"{name}/{term}" for name in terms for term in terms[name])}


def test_schedulers_step_once_an_iteration_however_many_steps_a_player_takes():
    halving, rates = {"iteration_scheduler": partial(LambdaLR, lr_lambda=lambda iteration: 0.5**iteration)}, []
    trainer, logged = trainer_of(players_of(generator={"steps": 3, **halving}, judge=halving)), []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: logged.append(*engine.state.output))
    for player in trainer.players.values():
        player.optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    trainer.run()
    assert rates == [0.1 * 0.5**i for i in range(4) for _ in range(4)]
    assert [losses["judge/learning_rate"] for losses in logged] == rates[::4]


def test_a_rate_that_stays_and_then_falls():
    optimizer, rates = sgd([torch.nn.Parameter(torch.zeros(1))]), []
    scheduler = ConstantThenLinear(optimizer, 8)
    for _ in range(9):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1] * 5 + [0.075, 0.05, 0.025, 0.0])


def test_a_step_of_epochs_and_the_network_of_a_players_name():
    decay, rates = partial(StepLR, step_size=2, gamma=0.5), []
    player = Player(optimizer=sgd, losses=JUDGE, epoch_scheduler=decay)
    trainer = trainer_of({"judge": player}, iterations=3, epochs=4)
    assert player.networks == ("judge",)
    player.optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    trainer.run()
    assert rates == [0.1] * 6 + [0.05] * 6
    two = {"epoch_scheduler": decay, "iteration_scheduler": decay}
    refused(lambda: Player(optimizer=sgd, losses=JUDGE, **two), ValueError, "epoch_scheduler and iteration_scheduler")
    plateau = Player(optimizer=sgd, losses=JUDGE, iteration_scheduler=ReduceLROnPlateau)
    refused(lambda: trainer_of({"judge": plateau}), ValueError, "player 'judge': ReduceLROnPlateau", "epoch_scheduler")


@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed")  # between MONAI and ignite
def test_monais_early_stopping_ends_the_training():
    stop = EarlyStopHandler(patience=2, score_function=lambda engine: 0.0)
    trainer = trainer_of(players_of(), epochs=9, train_handlers=[stop])
    trainer.run()
    assert trainer.state.epoch == 3


def scripted(losses, networks=("judge",), factor=0.1, patience=0, stop_below=None, start=0.1):
    """A player whose losses take the values in turn, whatever its networks do; its rate falls on a plateau."""
    values = iter(losses)
    rows = {"scripted": [1.0, lambda x: next(values) + 0 * x.sum(), "real" if "judge" in networks else "back"]}
    plateau = partial(ReduceLROnPlateau, factor=factor, patience=patience)
    return Player(networks, partial(torch.optim.SGD, lr=start), rows, epoch_scheduler=plateau, stop_below=stop_below)


def run_epochs(players, epochs, length):
    """The trainer, and the judge's learning rate after each iteration: where an epoch has ended, that for the next."""
    trainer, rates = trainer_of(players, iterations=length, epochs=epochs), []
    trainer.on(Events.ITERATION_COMPLETED)(lambda: rates.append(players["judge"].optimizer.param_groups[0]["lr"]))
    trainer.run()
    return trainer, rates


def test_a_plateau_is_one_of_the_means_of_epochs():
    """The means fall until epoch 3 and not after; the last losses of the epochs and the least do otherwise."""
    epochs = [(6, 2, 4), (5, 1, 3), (0, 5, 1), (2, 3, 1), (6, 0, 0.5), (3, 2.7, 0.3), (1, 1, 7), (9, 9, 9), (0, 0, 0)]
    means = [sum(epoch) / 3 for epoch in epochs]
    _, rates = run_epochs({"judge": scripted(sum(epochs, ()), patience=2)}, len(epochs), 3)
    # Epochs 4 to 6 have not been better than epoch 3 (which makes more than 2), and 7 to 8 only two more.
    assert [min(means[:i]) > mean for i, mean in enumerate(means) if i] == [True, True] + [False] * 5 + [True]
    assert rates == pytest.approx([0.1] * 17 + [0.01] * 10)


def test_training_ends_with_the_epoch_in_which_every_rate_has_fallen_far_enough():
    """Rates fall after every epoch but the first. The loader is told where it is at every epoch."""
    trainer, rates = run_epochs({"judge": scripted([1.0] * 99, stop_below=2e-3)}, 10, 2)
    assert trainer.state.iteration == 6 and trainer.data_loader.told == [0, 2, 4]
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 2 + [0.001])
    # At the bound itself a player goes on; and without one, or while another does.
    at_bound = {"judge": scripted([1.0] * 99, factor=0.5, stop_below=0.125, start=0.5)}
    generators = [scripted([1.0] * 99, ("down", "up"), stop_below=bound) for bound in (2e-5, None)]
    both = [{"generator": generator, "judge": scripted([1.0] * 99, stop_below=2e-3)} for generator in generators]
    for players, ends in ((at_bound, 4), ({"judge": scripted([1.0] * 99)}, 7), (both[0], 5), (both[1], 7)):
        assert len(run_epochs(players, 7, 2)[1]) == 2 * ends


def test_clipping_bounds_the_gradient_of_one_player_and_keeps_its_direction():
    def gradients_of(clip):
        trainer = trainer_of(players_of(generator={"clip_norm": clip}), iterations=3)
        found = {"generator": [], "judge": []}
        for name, player in trainer.players.items():
            player.optimizer.register_step_pre_hook(
                lambda *_, to=found[name], own=player.parameters: to.append(torch.cat([p.grad.flatten() for p in own]))
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
    rows = GENERATOR | {"cycle": [1.0, lambda x, y: seen.extend([x.dtype, y.dtype]) or l1(x, y), "back", "hr"]}
    trainer = trainer_of(players_of(optimizer=ADAM) | {"generator": Player(["down", "up"], ADAM, rows)}, **BF16)
    trainer.run()
    assert set(seen) == {torch.float32}
    assert [net.dtypes for net in trainer.graph.networks.values()] == [{torch.bfloat16}] * 3
    assert {p.dtype for p in trainer.graph.parameters()} == {torch.float32}
    assert all(isinstance(value, float) for value in trainer.state.output[0].values())


@pytest.mark.parametrize("began", [True, False])
def test_a_run_goes_on_in_the_precision_in_which_it_began(began, monkeypatch, tmp_path):
    """Also where another processor, or a new measurement, would choose the other; unless somebody says it."""

    def trainer(**options):
        return trainer_of(players_of(optimizer=ADAM), run_folder=RunFolder(tmp_path, resume=True), **options)

    for gain in (2.0, 0.5) if began else (0.5, 2.0):
        monkeypatch.setattr("common.runtime.precision._measure_gain", lambda *args, gain=gain: gain)
        trainer().run()
        assert torch.load(tmp_path / "models" / "training_state.pt")["amp"] is began
    assert trainer(amp=not began).amp is not began


def trainer_in_fp16(players):
    trainer = trainer_of(players, iterations=1, **FP16)
    for player in players.values():
        assert player.scaler.is_enabled()
        player.scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
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


@pytest.mark.parametrize(("first", "second", "fused"), [(FP16, BF16, None), (BF16, FP16, True)])
def test_a_state_goes_on_in_another_precision(first, second, fused):
    """From float16, whose optimizers are fused, to bfloat16, and the other way."""
    before, after = (trainer_of(players_of(optimizer=ADAM), **precision) for precision in (first, second))
    before.run()
    for name, player in after.players.items():
        player.load_state_dict(copy.deepcopy(before.players[name].state_dict()), 0, 0)
    after.run()
    for name, player in after.players.items():
        assert player.optimizer.param_groups[0]["fused"] == fused
        states = (one.optimizer.state.values() for one in (before.players[name], player))
        (earlier,), (later,) = ({float(state["step"]) for state in found} for found in states)
        assert later > earlier > 0  # in float16 the first may overflow


@pytest.mark.parametrize("optimizer", [sgd, ADAM], ids=["sgd", "fused"])
def test_an_overflow_in_fp16_skips_that_players_step_and_lowers_its_scale(optimizer):
    generator = Player(["down", "up"], optimizer, {"spike": [1.0, lambda x: spiked(x).mean(), "back"]})
    trainer = trainer_in_fp16(players_of(optimizer=optimizer) | {"generator": generator})
    before = values_of(trainer.graph.networks)
    trainer.run()
    for name, value in values_of(trainer.graph.networks).items():
        assert torch.equal(value, before[name]) == (not name.startswith("judge")), name
    assert [player.scaler.get_scale() for player in trainer.players.values()] == [64, 128]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(bad):
    factors, players = iter([1.0, 1.0, bad]), players_of()
    players["judge"].losses.terms["odd"] = (1.0, lambda x: x.mean() * next(factors), ("verdict",))
    refused(trainer_of(players).run, FloatingPointError, "iteration 3", ": judge/odd, judge/total. ")


def test_refused():
    refused(lambda: Player(["up"], sgd, GENERATOR, steps=0), ValueError, "steps=0", "1")
    refused(lambda: Player([], sgd, GENERATOR), ValueError, "networks=[]")
    unknown, other = Player(["upp"], sgd, GENERATOR), Player(["up"], sgd, {"x": [1.0, l1, "bakc", "hr"]})
    refused(lambda: trainer_of({"g": unknown}), ValueError, "'g'", "'upp'", "down, up, judge")
    refused(lambda: trainer_of({"g": other}), ValueError, "'g'", "'x'", "'bakc'", "hr, lr, fake, back")
    refused(
        lambda: trainer_of({name: Player(["up"], sgd, GENERATOR) for name in "gd"}), ValueError, "'g'", "'d'", "'up'"
    )
    refused(
        lambda: trainer_of(players_of(), validator=object(), network=Net()), ValueError, "validator", "give run_folder"
    )
    refused(lambda: trainer_of(players_of(), initial="a.pt"), ValueError, "initial is a.pt")
    refused(trainer_of(players_of(), batches=[{"hr": torch.rand(1, 2, 6, 5)}]).run, ValueError, "['lr']", "['hr']")


def test_layers_that_two_networks_of_a_player_share_are_trained_once():
    networks = networks_of()
    player = Player(["up", "alias"], sgd, {"cycle": [1.0, l1, "back", "hr"]})
    trainer_of({"generator": player}, networks | {"alias": nn.Sequential(networks["up"])})
    assert [*map(id, player.parameters)] == [*map(id, networks["up"].parameters())]
