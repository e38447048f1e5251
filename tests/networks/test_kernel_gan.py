"""Batched generators and discriminators of kernels against the networks that they stand for, one by one."""

import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode

from common.engines import AlternatingTrainer, Player
from common.graph import TensorGraph
from common.losses import AdaptationLoss, SumToOneLoss
from common.networks import (
    FixedKernel,
    GradientReversal,
    KernelDiscriminator,
    KernelGenerator,
    KernelSampling,
    ReceiverNoise,
)
from common.networks import kernel_gan as module

KERNELS = 3
# The paper's sizes, and others that reveal an assumption about them.
SIZES = [(7, 5, 3, 1, 1, 1), (3, 1, 5), (5,)]
SOBEL_X = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
SOBEL_Y = torch.tensor([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]])


def generator_of(sizes=SIZES[0], features=6, kernels=KERNELS, **options):
    return KernelGenerator(kernels, features, sizes, **{"gain": 1.0, **options})


def by_layers(generator, hr, stride):
    """The networks layer after layer, as the paper draws them: patches ``(kernels, crops, H, W)`` to the same."""
    out = []
    for i, patches in enumerate(hr):
        x = patches[:, None]
        for n, layer in enumerate(generator.layers, start=1):
            x = F.conv2d(x, layer[i], stride=stride if n == len(generator.layers) else 1)
        out.append(x[:, 0])
    return torch.stack(out)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_response_to_a_delta_is_the_kernel(sizes):
    """Layer after layer, the last with stride 1; a convolution network answers with its kernel mirrored."""
    generator = generator_of(sizes)
    kernels = generator.eval()().detach()
    size = sum(sizes) - len(sizes) + 1
    assert kernels.shape == (KERNELS, size, size) and generator.size == size
    delta = F.pad(torch.ones(KERNELS, 1, 1, 1), (size - 1,) * 4)
    response = by_layers(generator, delta, stride=1)[:, 0].flip(1, 2).detach()
    for kernel, answer in zip(kernels, response, strict=True):
        assert (kernel - answer).norm() <= 1e-6 * kernel.norm()
    assert (kernels[0] - kernels[1]).norm() > 0.1 * kernels[0].norm()


def test_the_sizes_are_those_of_the_paper():
    generator = KernelGenerator(2)
    assert [tuple(layer.shape[1:]) for layer in generator.layers] == [
        (64, 1, 7, 7), (64, 64, 5, 5), (64, 64, 3, 3), (64, 64, 1, 1), (64, 64, 1, 1), (1, 64, 1, 1),
    ]  # fmt: skip
    kernels = generator()
    assert kernels.shape == (2, 13, 13)
    assert KernelSampling(2)(torch.rand(2, 1, 64, 64), kernels).shape == (2, 1, 26, 26)
    assert KernelDiscriminator(2)(torch.rand(2, 1, 26, 26)).shape == (2, 1, 18, 18)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("sizes", SIZES[:2], ids=str)
def test_output_and_gradients_are_those_of_the_layers(sizes, factor):
    """In float64; also of patches whose sizes leave a remainder, and which the kernel's last taps do not reach."""
    generator = generator_of(sizes).double()
    hr = torch.rand(KERNELS, 2, 30, 27, dtype=torch.float64)
    weights = None
    found = []
    for way in ("composed", "layers"):
        if way == "composed":
            # KernelSampling itself computes in float32.
            lr = module._Sampling.apply(hr, generator(), factor)
        else:
            lr = by_layers(generator, hr, factor)
        weights = torch.randn_like(lr) if weights is None else weights
        found.append((lr, *torch.autograd.grad((weights * lr.tanh()).sum(), list(generator.layers))))
    assert found[0][0].shape == (KERNELS, 2, *((n - generator.size) // factor + 1 for n in hr.shape[2:]))
    for composed, layers in zip(*found, strict=True):
        torch.testing.assert_close(composed, layers, rtol=1e-9, atol=1e-12)
    single = KernelSampling(factor)(hr.float(), generator().float())
    torch.testing.assert_close(single, found[0][0].float(), rtol=1e-4, atol=1e-5)


def test_sampling_takes_slices_too_and_stays_in_float32():
    hr, kernels = torch.rand(4, 1, 12, 11, 1), torch.rand(4, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lr = KernelSampling(2)(hr, kernels)
    assert lr.dtype == torch.float32 and lr.shape == (4, 1, 4, 4, 1)
    for plane, kernel, found in zip(hr, kernels, lr, strict=True):
        expected = correlate(plane[0, ..., 0].numpy(), kernel.numpy())[2:-2:2, 2:-2:2]
        np.testing.assert_allclose(found[0, ..., 0], expected, rtol=1e-5)


def test_noise_is_that_of_the_magnitude_of_two_channels():
    lr, noise = torch.rand(2, 1, 5, 4, 1), 0.1 * torch.randn(2, 2, 5, 4, 1)
    magnitude = torch.complex(lr[:, 0] + noise[:, 0], noise[:, 1]).abs()
    torch.testing.assert_close(ReceiverNoise()(lr, noise), magnitude[:, None])
    torch.testing.assert_close(ReceiverNoise()(lr, 0 * noise), lr)


def test_the_average_forgets_over_its_memory_and_only_in_training():
    """At first it is the plain mean, so that what was there before training has no part in it."""
    generator = generator_of(memory=2)
    shares = (1.0, 0.5, 0.5)
    expected = 0.0
    for share in shares:
        with torch.no_grad():
            generator.layers[0].mul_(1.5)
        kernels = generator.train()().detach()
        expected = (1 - share) * expected + share * kernels
        generator.eval()()
    torch.testing.assert_close(generator.average, expected)
    assert (expected - kernels).norm() > 0.1 * kernels.norm() and "average" in generator.state_dict()


def test_a_fixed_kernel_is_given_to_all_and_not_saved():
    kernel = torch.rand(5, 5, dtype=torch.float64)
    fixed = FixedKernel(kernel, 3)
    assert torch.equal(fixed(), kernel.float().expand(3, 5, 5))
    assert not fixed.state_dict() and not list(fixed.parameters())


def discriminator_of(kernels=KERNELS, detail=False, **options):
    network = KernelDiscriminator(kernels, features=5, layers=3, detail=detail, **options)
    with torch.no_grad():  # so that no parameter could be forgotten unnoticed
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def hidden_of(stack, i):
    """Discriminator i's share of what is stacked for all hidden layers of all discriminators."""
    return stack.reshape(-1, len(stack) // 2, *stack.shape[1:])[:, i]  # of discriminator_of, 2 hidden layers


def literal_of(network, i):
    """Discriminator i by itself, of torch's own layers, and the maps that lead to its parameters and vectors."""
    features, size = network.last.shape[-1], network.size
    convolutions = [spectral_norm(nn.Conv2d(3, features, size, bias=False))]
    convolutions += [spectral_norm(nn.Conv2d(features, features, 1, bias=False)) for _ in range(2)]
    convolutions.append(spectral_norm(nn.Conv2d(features, 1, 1)))
    norms = [nn.BatchNorm2d(features) for _ in convolutions[1:]]
    weights = [network.first[i], *hidden_of(network.hidden, i), network.last[i]]
    vectors = [network.first_u[i], *hidden_of(network.hidden_u, i), network.last_u[i]]
    own = slice(i * features, (i + 1) * features)
    with torch.no_grad():
        for layer, weight, u in zip(convolutions, weights, vectors, strict=True):
            layer.weight_orig.copy_(weight.reshape(layer.weight_orig.shape))
            layer.weight_u.copy_(u[:, 0])
        convolutions[-1].bias.copy_(network.bias[i, 0])
        for norm, weight, bias in zip(norms, network.norm_weight, network.norm_bias, strict=True):
            norm.weight.copy_(weight[own])
            norm.bias.copy_(bias[own])
    layers = [convolutions[0]]
    for norm, layer in zip(norms, convolutions[1:], strict=True):
        layers += [norm, nn.ReLU(), layer]
    return nn.Sequential(*layers, nn.Sigmoid()).train(), convolutions, norms


def triplet(image, detail):
    """Eq. 1, of ``(h, w)``: the image and its maps, where the maps need nothing from outside; CNNs correlate."""
    if detail:
        padded = np.pad(image.numpy(), 1, mode="edge")
        h, w = image.shape
        image = image - torch.from_numpy(sum(padded[a : a + h, b : b + w] for a in range(3) for b in range(3)) / 9)
    maps = [F.conv2d(image[None, None], sobel.to(image)[None, None]) for sobel in (SOBEL_X, SOBEL_Y)]
    return torch.cat([image[None, None, 1:-1, 1:-1], *maps], dim=1)


@pytest.mark.parametrize("detail", [False, True])
def test_each_discriminator_is_its_own_sequence_of_layers(detail):
    """Verdicts, power iteration, and the gradients of all parameters and of the image."""
    network = discriminator_of(detail=detail).train()
    lr = torch.rand(KERNELS, 2, 14, 13, requires_grad=True)
    target = torch.rand(KERNELS, 2, 6, 5)
    before = copy.deepcopy(network)
    verdicts = network(lr)
    assert verdicts.shape == target.shape and 0 < verdicts.min() and verdicts.max() < 1
    ((verdicts - target) ** 2).sum().backward()
    for i in range(KERNELS):
        literal, convolutions, norms = literal_of(before, i)
        loss = 0
        images = lr[i].detach().clone().requires_grad_()
        # Two crops are two batches of one; but the vectors move once a pass, so the second repeats the first.
        for crop, verdict, wanted in zip(images, verdicts[i], target[i], strict=True):
            state = copy.deepcopy(literal.state_dict())
            expected = literal(triplet(crop, False) if not detail else _differentiable(crop))[0, 0]
            torch.testing.assert_close(verdict, expected, rtol=1e-4, atol=1e-5)
            loss = loss + ((expected - wanted) ** 2).sum()
            after = {k: v.clone() for k, v in literal.state_dict().items() if k.endswith("weight_u")}
            for name, buffer in literal.named_buffers():
                buffer.data = state[name].clone()
        loss.backward()
        vectors = [network.first_u[i], *hidden_of(network.hidden_u, i), network.last_u[i]]
        for vector, expected in zip(vectors, after.values(), strict=True):
            torch.testing.assert_close(vector[:, 0], expected, rtol=1e-4, atol=1e-5)
        gradients = [network.first.grad[i], *hidden_of(network.hidden.grad, i), network.last.grad[i]]
        for gradient, layer in zip(gradients, convolutions, strict=True):
            torch.testing.assert_close(gradient, layer.weight_orig.grad.reshape(gradient.shape), rtol=1e-3, atol=1e-5)
        own = slice(i * 5, (i + 1) * 5)
        for n, norm in enumerate(norms):
            torch.testing.assert_close(network.norm_weight.grad[n, own], norm.weight.grad, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(network.norm_bias.grad[n, own], norm.bias.grad, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(network.bias.grad[i, 0], convolutions[-1].bias.grad, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(lr.grad[i], images.grad, rtol=1e-3, atol=1e-5)


def _differentiable(image):
    """:func:`triplet` with detail, by torch; equal to the other, which the test below says."""
    padded = F.pad(image[None, None], (1, 1, 1, 1), mode="replicate")
    high = image - F.conv2d(padded, torch.full((1, 1, 3, 3), 1 / 9))[0, 0]
    return triplet(high, False)


def test_detail_is_the_image_less_its_mean_over_three_pixels():
    image = torch.rand(9, 8)
    torch.testing.assert_close(_differentiable(image), triplet(image, True))
    # What is slow is not judged; noise is.
    network = discriminator_of(1, detail=True).eval()
    lr = torch.rand(1, 1, 16, 16)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    inner = (..., slice(1, -1), slice(1, -1))  # at the edges a slope is bent
    slope, features = 0.3 + 0.02 * rows - 0.05 * columns, []
    handle = module._patches
    for image in (lr, lr + slope):
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_patches", lambda x, edge, seen=seen: seen.append(x) or handle(x, edge))
            network(image)
        features.append(seen[0])
    torch.testing.assert_close(features[0][inner], features[1][inner], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("detail", "size", "seen"), [(False, 7, 9), (True, 7, 11), (False, 3, 5)])
def test_a_verdict_sees_its_patch_and_no_more(detail, size, seen, monkeypatch):
    """But for batch norm, which takes the statistics of the crop; without it, 7x7 pixels and one for their Sobel."""
    monkeypatch.setattr(module.F, "group_norm", lambda x, *_: x)
    network = discriminator_of(2, detail=detail, size=size).double()
    lr = torch.rand(2, 2, 21, 20, dtype=torch.float64, requires_grad=True)
    verdicts = network(lr)
    assert verdicts.shape == (2, 2, 21 - size - 1, 20 - size - 1)
    (gradient,) = torch.autograd.grad(verdicts[1, 0, 4, 3], lr)
    others = gradient.clone()
    others[1, 0] = 0
    assert not others.any()
    rows, columns = gradient[1, 0].abs().amax(dim=1) > 0, gradient[1, 0].abs().amax(dim=0) > 0
    first = 4 - (seen - size - 2) // 2, 3 - (seen - size - 2) // 2
    assert rows.nonzero().flatten().tolist() == list(range(first[0], first[0] + seen))
    assert columns.nonzero().flatten().tolist() == list(range(first[1], first[1] + seen))


def only(network, j):
    """Kernel j of a batch, by itself."""
    alone = copy.deepcopy(network)
    features = network.last.shape[-1] if isinstance(network, KernelDiscriminator) else None
    for holder in (alone._parameters, alone._buffers):
        for name, value in holder.items():
            if name == "triplet" or value is None:
                continue
            if name.startswith("norm"):
                value = value[:, j * features : (j + 1) * features]
            elif name.startswith("hidden"):
                value = hidden_of(value, j)
            else:
                value = value[j : j + 1]
            holder[name] = nn.Parameter(value.detach().clone()) if holder is alone._parameters else value.clone()
    if isinstance(network, KernelGenerator):
        alone.layers = nn.ParameterList(layer[j : j + 1].detach().clone() for layer in network.layers)
    return alone


@pytest.mark.parametrize("detail", [False, True])
def test_a_kernel_of_a_batch_is_what_it_is_alone(detail):
    generator, judge, sampling = generator_of(), discriminator_of(detail=detail), KernelSampling(2)
    alone = [(only(generator, j), only(judge, j)) for j in range(KERNELS)]
    hr = torch.rand(KERNELS, 2, 34, 34)
    for _ in range(2):  # power iterations too
        verdicts = judge(sampling(hr, generator()))
        for j, (one, its_judge) in enumerate(alone):
            single = its_judge(sampling(hr[j : j + 1], one()))
            torch.testing.assert_close(verdicts[j : j + 1], single, rtol=1e-6, atol=1e-6)


def test_spectral_norm_bounds_every_layer():
    network = discriminator_of()
    for name in ("first", "hidden", "last"):
        for _ in range(100):
            network.train()._normed(name)
        norms = torch.linalg.matrix_norm(network.eval()._normed(name), ord=2)
        torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=0.01)


def test_the_joint_pass_gives_both_players_their_gradients():
    """Eq. 2 written out: the discriminators minimise its two terms, the generators maximise the second and add R."""
    torch.manual_seed(1)
    generator, judge, sampling = generator_of(gain=0.7), discriminator_of().eval(), KernelSampling(2)
    hr, lr = torch.rand(KERNELS, 1, 34, 34), torch.rand(KERNELS, 1, 12, 12)

    fake = sampling(hr, generator())
    loss = (judge(lr) - 1).abs().mean() + judge(fake.detach()).abs().mean()
    of_judge = torch.autograd.grad(loss, list(judge.parameters()))
    regulariser = (1 - generator().sum(dim=(1, 2))).abs().mean()
    loss = -judge(sampling(hr, generator())).abs().mean() + regulariser
    of_generator = torch.autograd.grad(loss, list(generator.parameters()))

    kernel = generator()
    joint = AdaptationLoss(1.0)(judge(lr)) + SumToOneLoss()(kernel).mean()
    joint = joint + AdaptationLoss(0.0)(judge(GradientReversal()(sampling(hr, kernel))))
    gradients = torch.autograd.grad(joint, [*judge.parameters(), *generator.parameters()])
    assert all(g.abs().max() > 0 for g in gradients)
    for gradient, expected in zip(gradients, [*of_judge, *of_generator], strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    image = torch.rand(2, 3)
    assert torch.equal(GradientReversal()(image), image)


def test_the_trainers_step_is_that_of_the_two_losses():
    """The same through a graph: one player's step of SGD moves both networks as two alternating players would."""
    torch.manual_seed(1)
    networks = {
        "generator": generator_of(gain=0.7),
        "sampling": KernelSampling(2),
        "reversal": GradientReversal(),
        "judge": discriminator_of(),
    }
    before = copy.deepcopy(networks)
    steps = {
        "kernel": ["generator"],
        "fake": ["sampling", "hr", "kernel"],
        "reversed": ["reversal", "fake"],
        "fake_verdict": ["judge", "reversed"],
        "verdict": ["judge", "lr"],
    }
    rows = [("real", AdaptationLoss(1.0), "verdict"), ("fake", AdaptationLoss(0.0), "fake_verdict")]
    rows = {name: [1.0, loss, tensor] for name, loss, tensor in rows}
    batch = {"hr": torch.rand(KERNELS, 1, 34, 34), "lr": torch.rand(KERNELS, 1, 12, 12)}
    player = Player(["generator", "judge"], lambda p: torch.optim.SGD(p, lr=0.1), rows)
    graph = TensorGraph(networks, steps)
    AlternatingTrainer(torch.device("cpu"), 1, [batch], graph, {"both": player}, epoch_length=1).run()

    generator, judge = before["generator"], before["judge"]
    fake = before["sampling"](batch["hr"], generator())
    # Names are computed in order: the verdict on what is made comes first, so its vectors are one iteration younger.
    on_fake = judge(fake)
    (-on_fake.abs().mean()).backward(inputs=list(generator.parameters()), retain_graph=True)
    (on_fake.abs().mean() + (judge(batch["lr"]) - 1).abs().mean()).backward(inputs=list(judge.parameters()))
    for name in ("generator", "judge"):
        for was, now in zip(before[name].parameters(), networks[name].parameters(), strict=True):
            assert was.grad.abs().max() > 0
            torch.testing.assert_close(now, was - 0.1 * was.grad, rtol=1e-4, atol=1e-6)


def test_a_crop_without_verdicts_is_refused():
    """Of a single verdict batch norm leaves 0, so that it is none."""
    discriminator = KernelDiscriminator(1, features=4)
    assert discriminator(torch.rand(1, 1, 10, 10)).shape == (1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"9x10 pixels, expected at least 10x10 .* larger crop"):
        discriminator(torch.rand(1, 1, 9, 10))


class Operators(TorchDispatchMode):
    """The names of what torch computes."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(operator.overloadpacket.__name__)
        return operator(*args, **(kwargs or {}))


def test_no_operator_is_used_that_cuda_starts_once_for_each_kernel():
    """im2col, which is the forward of unfold and the backward of fold."""
    generator, judge = generator_of(), discriminator_of(KERNELS)
    with Operators() as used:
        sampled = KernelSampling(2)(torch.rand(KERNELS, 2, 40, 40), generator())
        judge(sampled).mean().backward()
    assert generator.layers[0].grad.norm() > 0 and "col2im" in used.names and "im2col" not in used.names


@pytest.mark.parametrize("size", [1, 3])
def test_patches_and_their_adjoint_are_those_of_torch(size):
    images = torch.rand(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(module._patches(images, size).flatten(1, 2), F.unfold(images, size))
    assert torch.autograd.gradcheck(lambda x: module._Patches.apply(x, size), images)
    patches = torch.rand(2, 3 * size**2, (6 - size + 1) ** 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: module._Overlaid.apply(x, 6, size), patches)
