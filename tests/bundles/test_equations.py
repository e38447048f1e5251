"""What each player minimises is the equation of its paper, written out here with the networks as functions.

A term's sign, weight, inputs and the way to them are all in the sum, which is compared for a batch of real data.
"""

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from common.engines import Player
from common.losses import LowFrequencyLoss, SquaredSSIMLoss, SSIMLoss

from . import runs


def l1(x, y):
    return (x - y).abs().mean()


def mse(x, y):
    return (x - y).square().mean()


def real(verdict):
    return mse(verdict, 1)


def fake(verdict):
    return mse(verdict, 0)


def from_logits(verdict, target):
    return F.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, target))


def reconstruction(x, y, verdict=None, alpha=0.5, beta=0.01):
    """Liu et al. 2023, eq. 4, 6 and 7."""
    return l1(x, y) + alpha * SquaredSSIMLoss()(x, y) + (0 if verdict is None else beta * real(verdict))


def undecided(*verdicts):
    return sum(l1(verdict, 0.5) for verdict in verdicts)


def udean(n, hr, lr):
    """Liu et al. 2023, eq. 4 to 12, with a discriminator of HR."""
    of_hr, of_lr = n.hr_encoder(hr), n.lr_encoder(lr)
    lr_fake, lr_self = n.lr_decoder(of_hr), n.lr_decoder(of_lr)
    of_fake = n.lr_encoder(lr_fake)
    hr_cycle, hr_self = n.sr_decoder(of_fake, lr_fake), n.sr_decoder(of_hr, lr_fake)
    d_lr, d_hr, d_feature = n.lr_discriminator, n.hr_discriminator, n.feature_discriminator
    yield (
        1.0 * reconstruction(hr_cycle, hr, d_hr(hr_cycle))
        + 0.1 * l1(of_fake, of_hr)
        + 1.0 * reconstruction(hr_self, hr, d_hr(hr_self))
        + 1.0 * reconstruction(lr_self, lr, d_lr(lr_self))
        + 0.1 * undecided(d_lr(lr_fake), d_lr(lr))
        + 0.1 * undecided(d_feature(of_hr), d_feature(of_lr))
    )
    yield (
        real(d_lr(lr)) + fake(d_lr(lr_fake)) + real(d_feature(of_hr)) + fake(d_feature(of_lr))
        + real(d_hr(hr)) + fake(d_hr(hr_cycle)) + fake(d_hr(hr_self))
    )  # fmt: skip


def udean_window(n, hr, hr_context, lr, slab_orientation, lr_slab_orientation, noise, training_noise):
    """The adversary judges what scanners' noise is added to; the generator sees noise of its own."""
    clean = n.linear_degradation(hr_context, slab_orientation)
    judged, lr_fake = n.receiver(clean, noise), n.receiver(clean, training_noise)
    verdicts = n.lr_discriminator(judged, slab_orientation), n.lr_discriminator(lr, lr_slab_orientation)
    anchor = LowFrequencyLoss(2.0)(clean, n.generic_degradation(hr_context, slab_orientation))
    yield 0.1 * undecided(*verdicts) + 10.0 * anchor
    yield reconstruction(n.sr_decoder(n.lr_encoder(lr_fake, slab_orientation), lr_fake), hr)
    yield real(verdicts[1]) + fake(n.lr_discriminator(lr_fake, slab_orientation))


def cyclegan(n, hr, lr):
    """Zhu et al. 2017, eq. 1 to 3, and the identity of section 5.2; half of each discriminator's loss."""
    up, down, d_hr, d_lr = n.up, n.down, n.hr_discriminator, n.lr_discriminator
    cycles = l1(down(up(lr)), lr) + l1(up(down(hr)), hr)
    identities = l1(down(n.interpolation(lr)), lr) + l1(up(n.sampling(hr)), hr)
    yield 10 * cycles + 5 * identities + real(d_hr(up(lr))) + real(d_lr(down(hr)))
    yield (real(d_hr(hr)) + fake(d_hr(up(lr))) + real(d_lr(lr)) + fake(d_lr(down(hr)))) / 2


def cut(n, hr, lr):
    """Park et al. 2020, eq. 1 to 5, with every pixel of a subgrid as a place; half of the discriminator's loss."""
    everywhere = torch.arange(lr.shape[2] * lr.shape[3])

    def find_places(generated, given):
        projected = [n.heads(n.features(slab, SUBGRID, everywhere)) for slab in (generated, given)]
        queries, keys = (F.normalize(features, dim=-1).flatten(0, 1) for features in projected)
        return sum(F.cross_entropy(q @ k.T / 0.07, everywhere) for q, k in zip(queries, keys, strict=True)) / len(keys)

    hr_fake, hr_self = n.up(lr), n.up(n.sampling(hr))
    yield find_places(hr_fake, n.interpolation(lr)) + find_places(hr_self, hr) + real(n.hr_discriminator(hr_fake))
    yield (real(n.hr_discriminator(hr)) + fake(n.hr_discriminator(hr_fake))) / 2


def blind_sr(n, hr, lr, lr_source):
    """Style transfer of LR by a CycleGAN between source and target, and super-resolution of the source's."""
    to_source, to_target = n.transfer, n.transfer_back
    d_source, d_target = n.source_discriminator, n.target_discriminator
    cycles = l1(to_target(to_source(lr)), lr) + l1(to_source(to_target(lr_source)), lr_source)
    identities = l1(to_target(lr), lr) + l1(to_source(lr_source), lr_source)
    yield real(d_target(to_target(lr_source))) + real(d_source(to_source(lr))) + 10 * cycles + 5 * identities
    yield l1(n.super_resolver(lr_source), hr)
    yield (
        real(d_target(lr)) + fake(d_target(to_target(lr_source)))
        + real(d_source(lr_source)) + fake(d_source(to_source(lr)))
    ) / 2  # fmt: skip


def pseudo_sr(n, hr, lr, lr_source):
    """Maeda 2020: intensities there are 0 to 255, so that L1 weighs 255 times as much here."""
    degraded, clean = n.degrader(lr_source), n.corrector(lr)
    pseudo = n.corrector(degraded)
    d_lr, d_clean, d_sr = n.target_discriminator, n.clean_discriminator, n.sr_discriminator
    of_pseudo, of_clean = d_sr(n.super_resolver(pseudo)), d_sr(n.super_resolver(clean))
    distances = l1(pseudo, lr_source) + 2 * l1(n.corrector(lr_source), lr_source) + l1(clean, n.ensemble(lr))
    yield real(d_lr(degraded)) + real(d_clean(clean)) + 0.1 * real(of_pseudo) + 255 * distances
    yield l1(n.super_resolver(pseudo), hr)
    yield (
        real(d_lr(lr)) + fake(d_lr(degraded)) + real(d_clean(lr_source)) + fake(d_clean(clean))
        + real(of_clean) + fake(of_pseudo)
    ) / 2  # fmt: skip


def dasr(n, hr, lr, lr_source):
    """Wei et al. 2021: the degradation keeps low bands, and the error is weighed by the domain's distance."""
    lr_fake, sr = n.lr_decoder(n.hr_encoder(hr), lr_source), n.sr
    d_lr, d_hr = n.lr_discriminator, lambda image: n.hr_discriminator(n.high_bands(image))
    again, weights = sr(lr_fake), n.domain_distance(d_lr(lr_fake), lr_fake)
    yield 0.005 * from_logits(d_lr(lr_fake), 1.0) + LowFrequencyLoss(2.0, each_slice=True)(lr_fake, lr_source)
    yield (
        (weights * (again - hr).abs()).mean()
        + l1(n.low_band(again), n.low_band(hr))
        + 0.005 * from_logits(d_hr(sr(lr)), 1.0)
    )
    yield (
        from_logits(d_lr(lr), 1.0) + from_logits(d_lr(lr_fake), 0.0)
        + from_logits(d_hr(hr), 1.0) + from_logits(d_hr(sr(lr)), 0.0)
    ) / 2  # fmt: skip


def ct_guided(n, hr, hr_recoloured, gains, lr, prior_mr, prior_ct):
    """Stages 1 and 2; then MUNIT's eq. 1 to 7 between super-resolved MR x and CT y, and SRNet on what it translates."""
    ct = l1(n.sr_net(n.slice_gains(n.thickening(hr_recoloured), gains)), n.slice_gains(hr_recoloured, gains))
    x, y = n.sr_net(lr), hr
    consistency = l1(n.degradation(x), lr)
    yield ct
    yield l1(x, n.sr_net(n.degradation(x))) + ct + consistency
    content_x, content_y = n.content_mr(x), n.content_ct(y)
    attributes_x, attributes_y = n.attributes_mr(x), n.attributes_ct(y)
    to_mr, to_ct = n.decoder_mr(content_y, prior_mr), n.decoder_ct(content_x, prior_ct)
    content_x_again, content_y_again = n.content_ct(to_ct), n.content_mr(to_mr)
    verdicts = n.discriminator_mr(to_mr), n.discriminator_ct(to_ct)
    yield (
        from_logits(n.discriminator_mr(x), 1.0) + from_logits(verdicts[0], 0.0)
        + from_logits(n.discriminator_ct(y), 1.0) + from_logits(verdicts[1], 0.0)
    )  # fmt: skip
    yield (
        10 * (l1(n.decoder_mr(content_x, attributes_x), x) + l1(n.decoder_ct(content_y, attributes_y), y))
        + 10 * (l1(n.decoder_mr(content_x_again, attributes_x), x) + l1(n.decoder_ct(content_y_again, attributes_y), y))
        + l1(content_x_again, content_x) + l1(content_y_again, content_y)
        + l1(n.attributes_mr(to_mr), prior_mr) + l1(n.attributes_ct(to_ct), prior_ct)
        + 0.5 * (l1(to_ct, x) + l1(to_mr, y))  # the features that are compared are grey values here
        + from_logits(verdicts[0], 1.0) + from_logits(verdicts[1], 1.0)
    )  # fmt: skip
    yield l1(n.sr_net(n.thickening(to_mr)), to_mr) + ct + consistency


def mdcsrn_gan(n, hr, lr, random_numbers):
    """Gulrajani et al. 2017, eq. 3."""
    sr, share = n.mdcsrn(lr), random_numbers.view(-1, *[1] * (hr.ndim - 1))
    between = (share * hr + (1 - share) * sr).detach().requires_grad_()
    (slope,) = torch.autograd.grad(n.critic(between).sum(), between)
    yield n.critic(sr).mean() - n.critic(hr).mean() + 10 * mse(slope.flatten(1).norm(dim=1), 1)
    yield l1(sr, hr) - 0.001 * n.critic(sr).mean()


def tscn(n, first, second, third, above, slice, below):
    def between(*sides):
        return n.between(n.join(*sides))

    yield l1(between(first, third), second) + l1(between(between(above, slice), between(slice, below)), slice)


def smore(n, hr, lr, blurred):
    """Zhao et al. 2021: each network learns from the images that it is to see, side by side."""
    yield l1(n.anti_aliasing(lr), blurred) + l1(n.edsr(blurred), hr)


def dsn(n, hr, lr):
    yield l1(n.dsn(hr), lr)
    yield l1(n.edsr(n.dsn(hr)), hr)


def guided_rdn(n, hr, hr_context, guide):
    yield l1(n.rdn(n.concatenate(n.interpolation(n.degradation(hr_context)), guide)), hr)


def recnn(n, hr, hr_context, guide):
    yield l1(n.recnn(n.concatenate(n.interpolation(n.degradation(hr_context)), guide)), hr)


def reconresnet(n, hr, lr):
    yield SSIMLoss()(n.resnet(lr), hr)


def res_srdiff(n, hr, lr):
    """Yue et al. 2023, eq. 2 and 8, without its weights of the steps; shares by the formula of its eq. 10."""
    step, noise = n.draw_step(hr), n.sample_noise(hr)
    root = 0.001**0.5 * (0.99 / 0.001**0.5) ** step.double().pow(0.3).view(-1, 1, 1, 1).float()  # of two steps
    shifted = hr + root**2 * (lr - hr) + 0.1 * root * noise
    yield mse(n.denoiser(torch.cat([shifted, lr], dim=1), step), hr)


def supervised(distance, network):
    def equation(n, hr, lr):
        yield distance(getattr(n, network)(lr), hr)

    return equation


EQUATIONS = {
    **{f.__name__: f for f in (udean, udean_window, cyclegan, cut, blind_sr, pseudo_sr, dasr, ct_guided, mdcsrn_gan)},
    **{f.__name__: f for f in (tscn, dsn, guided_rdn, recnn, reconresnet, res_srdiff, smore)},
    **{"srcnn": supervised(mse, "srcnn"), "vdsr": supervised(mse, "vdsr"), "dcsrn": supervised(l1, "dcsrn")},
    **{"zssr": supervised(l1, "cnn"), "eclare": supervised(l1, "wdsr")},
}
SUBGRID = torch.tensor([1, 0, 1])
# Terms that wait for others are trained at once; features that would have to be loaded are grey values.
SETTINGS = {
    "cut": {"places": 256, "graph#networks#random_subgrid": {"_target_": f"{__name__}.OneSubgrid"}},
    "ct_guided": {"lambda_3": 0.5, "perceptual": {"_target_": f"{__name__}.GreyValues"}},
    "dasr": {"dsn_iterations": 0}, "dsn": {"dsn_iterations": 0}, "mdcsrn_gan": {"pretraining": 0},
    "smore": {"self_anti_aliasing": True}, "tscn": {"pretraining": 0},
    "udean_window": {"anchor": 10.0, "noise_levels": [0.02]},
}  # fmt: skip


class GreyValues(torch.nn.L1Loss):
    has_weights = True


class OneSubgrid(torch.nn.Module):
    def forward(self, slab):
        return SUBGRID


@pytest.mark.parametrize("bundle", EQUATIONS, indirect=True, scope="session")
def test_each_player_minimises_its_equation(bundle, tiny, cohort, tmp_path):
    options = {"device": "cpu", "dataset_dir": str(cohort), "output_dir": str(tmp_path), **SETTINGS.get(bundle, {})}
    options = {**tiny.network, **tiny.training, "batch_size": 2, **options}
    config = runs.content(bundle, None, "train", **options)
    graph, make_loader = (config.get_parsed_content(key) for key in ("graph", "train#dataloader"))
    graph.eval()  # whose networks then give the same each time
    with torch.no_grad():
        for parameter in graph.parameters():  # many begin at 0, where other terms would be the same
            parameter += 0.02 * torch.randn_like(parameter)
    batch = next(iter(make_loader()))
    players = [player for found in having_players(config.get()) for player in config.get_parsed_content(found).values()]
    tables = [player.losses for player in players if isinstance(player, Player)]
    equation = EQUATIONS[bundle]
    inputs = {name: batch[name] for name in [*inspect.signature(equation).parameters][1:]}
    torch.manual_seed(0)  # for draws
    sums = [*equation(SimpleNamespace(**graph.networks), **inputs)]
    assert len(sums) == len(tables)
    for table, expected in zip(tables, sums, strict=True):
        names = [name for needed in table.list_inputs().values() for name in needed]
        torch.manual_seed(0)
        found, _ = table(graph(batch, names))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def having_players(value, path=""):
    """Keys of the players of a config, in their order."""
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        key = f"{path}#{name}".removeprefix("#")
        if name == "players" and isinstance(item, dict):
            yield key
        else:
            yield from having_players(item, key)
