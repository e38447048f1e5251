"""Batched generators and discriminators of kernels against the networks that they stand for, one by one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode

from common.networks import FixedKernel, GradientReversal, KernelDiscriminator, KernelGenerator, KernelSampling
from common.networks import kernel_gan as module

from ..refused import refused

KERNELS = 3
SIZES = [(7, 5, 3, 1, 1, 1), (3, 1, 5), (5,)]  # the paper's, and others that reveal an assumption about them
SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])


def generator_of(sizes=SIZES[0], gain=1.0):
    generator = KernelGenerator(KERNELS, 6, sizes)
    for layer in generator.layers:
        layer.data *= 10 * gain
    return generator


def test_sizes_are_those_of_the_paper_and_crops_without_verdicts_are_refused():
    """Of a single verdict batch norm leaves 0, so that it is none."""
    generator, discriminator = KernelGenerator(2), KernelDiscriminator(2)
    expected = [(64, 1, 7, 7), (64, 64, 5, 5), (64, 64, 3, 3), (64, 64, 1, 1), (64, 64, 1, 1), (1, 64, 1, 1)]
    assert [tuple(layer.shape[1:]) for layer in generator.layers] == expected
    crops = KernelSampling(2)(torch.rand(2, 1, 64, 64), generator())
    assert generator().shape == (2, 13, 13) and crops.shape == (2, 1, 26, 26)
    assert discriminator(crops).shape == (2, 1, 18, 18) and discriminator(crops[..., 16:, 16:]).shape == (2, 1, 2, 2)
    refused(lambda: discriminator(crops[..., 17:, 16:]), ValueError, "9x10", "10x10")


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_output_and_gradients_are_those_of_the_layers(sizes, factor):
    """In float64; also of patches whose sizes leave a remainder, and which the kernel's last taps do not reach."""
    generator, size = generator_of(sizes).double(), sum(sizes) - len(sizes) + 1
    kernels, hr = generator(), torch.rand(KERNELS, 2, 30, 27, dtype=torch.float64)
    assert kernels.shape == (KERNELS, size, size) and generator.size == size
    assert (kernels[0] - kernels[1]).norm() > 0.1 * kernels[0].norm()
    composed, layers = module._Sampling.apply(hr, kernels, factor), []  # KernelSampling itself computes in float32
    for i, x in enumerate(hr[:, :, None]):
        for layer in list(generator.layers)[:-1]:
            x = F.conv2d(x, layer[i])
        layers.append(F.conv2d(x, generator.layers[-1][i], stride=factor)[:, 0])
    assert composed.shape == (KERNELS, 2, *((n - size) // factor + 1 for n in hr.shape[2:]))
    lrs, weights = (composed, torch.stack(layers)), torch.randn_like(composed)
    found, expected = ([x, *torch.autograd.grad((weights * x.tanh()).sum(), generator.layers)] for x in lrs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # which it keeps out, of slices too
        single, slices = KernelSampling(factor)(hr, kernels), KernelSampling(factor)(hr[:, :1, ..., None], kernels)
    torch.testing.assert_close(single, composed.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slices, single[:, :1, ..., None])


def test_the_average_forgets_over_its_memory_and_only_in_training():
    """At first it is the plain mean, so that what was there before training has no part in it."""
    generator, expected = generator_of(), 0.0
    generator.memory = 2
    for share in (1.0, 0.5, 0.5):
        generator.layers[0].data *= 1.5
        kernels = generator.train()().detach()
        expected = (1 - share) * expected + share * kernels
        generator.eval()()
    torch.testing.assert_close(generator.average, expected)
    assert (expected - kernels).norm() > 0.1 * kernels.norm() and "average" in generator.state_dict()


def test_a_fixed_kernel_is_given_to_all_and_not_saved():
    fixed, hr = FixedKernel(kernel := torch.rand(5, 5, dtype=torch.float64)), torch.rand(3, 2, 9, 9)
    assert torch.equal(KernelSampling(2)(hr, fixed()), KernelSampling(2)(hr, kernel.float().repeat(3, 1, 1)))
    assert not fixed.state_dict() and not list(fixed.parameters())


def discriminator_of(detail=False, size=7, batch_norm=True):
    network = KernelDiscriminator(KERNELS, features=5, layers=3, detail=detail, size=size, batch_norm=batch_norm)
    for parameter in network.parameters():  # so that none could be forgotten unnoticed
        parameter.data += 0.3 * torch.randn_like(parameter)
    return network


def share_of(tensors, i):
    """Discriminator i's share of tensors by name, which are stacked for all discriminators."""
    return {
        name: (x.unflatten(1, (KERNELS, -1)) if name.startswith("norm") else x.unflatten(0, (-1, KERNELS)))[:, i]
        for name, x in tensors.items()
    }


def in_order(share, kind=""):
    return [*share[f"first{kind}"], *share[f"hidden{kind}"], *share[f"last{kind}"]]


def literal_of(network, i):
    """Discriminator i by itself, of torch's own layers; the norm of an instance is that of a batch of one."""
    share, layers = share_of({name: x.detach().clone() for name, x in network.state_dict().items()}, i), []
    normed = "norm_weight" in share
    hidden = [nn.Conv2d(5, 5, 1, bias=not normed) for _ in range(2)]
    convolutions = [nn.Conv2d(3, 5, network.size, bias=not normed), *hidden, nn.Conv2d(5, 1, 1)]
    convolutions[-1].bias.data = share["bias"].flatten()
    for layer, weight, u in zip(convolutions, in_order(share), in_order(share, "_u"), strict=True):
        layer.weight.data = weight.reshape(layer.weight.shape)
        spectral_norm(layer).weight_u = u[:, 0]
        layers += [layer, nn.InstanceNorm2d(5, affine=True) if normed else nn.Identity(), nn.ReLU()]
    for norm, weight in zip(layers[1:-3:3] if normed else (), share.get("norm_weight", ()), strict=True):
        norm.weight.data = weight
    for layer, bias in zip(layers[1 if normed else 0 : -3 : 3], share["norm_bias"], strict=True):
        layer.bias.data = bias
    return nn.Sequential(*layers[:-2], nn.Sigmoid())


def triplet(images, detail):
    """Eq. 1, of ``(n, 1, h, w)``: the image and its maps, where these need nothing from outside."""
    if detail:  # the image less its mean over three pixels
        padded, (h, w) = F.pad(images, (1, 1, 1, 1), mode="replicate"), images.shape[2:]
        images = images - sum(padded[..., a : a + h, b : b + w] for a in range(3) for b in range(3)) / 9
    maps = [F.conv2d(images, sobel[None, None]) for sobel in (SOBEL, SOBEL.T)]
    return torch.cat([images[..., 1:-1, 1:-1], *maps], dim=1)


@pytest.mark.parametrize(
    ("detail", "size", "batch_norm"), [(False, 7, True), (True, 7, True), (False, 3, True), (False, 7, False)]
)
def test_each_discriminator_is_its_own_sequence_of_layers_with_their_gradients(detail, size, batch_norm):
    network = discriminator_of(detail, size, batch_norm)
    literals = [literal_of(network, i) for i in range(KERNELS)]
    lr, target = torch.rand(KERNELS, 2, 14, 13, requires_grad=True), torch.rand(KERNELS, 2, 13 - size, 12 - size)
    for _ in range(2):  # each crop is a batch of one, but the vectors move once a pass
        verdicts = network(lr)
    assert verdicts.shape == target.shape and 0 < verdicts.min() and verdicts.max() < 1
    ((verdicts - target) ** 2).sum().backward()
    for i, literal in enumerate(literals):
        images = lr[i, :, None].detach().requires_grad_()
        for _ in range(2):
            expected = literal(triplet(images, detail))[:, 0]
        ((expected - target[i]) ** 2).sum().backward()
        convolutions, norms = literal[::3], literal[1:-1:3] if batch_norm else ()
        biased = norms or convolutions[:-1]
        own = share_of({name: parameter.grad for name, parameter in network.named_parameters()}, i)
        found = [verdicts[i], *(u[:, 0] for u in in_order(share_of(network.state_dict(), i), "_u"))]
        torch.testing.assert_close(found, [expected, *(c.weight_u for c in convolutions)], rtol=1e-4, atol=1e-5)
        of_norms = [*own.get("norm_weight", ()), *own["norm_bias"]]
        found = [lr.grad[i], own["bias"].flatten(), *of_norms, *in_order(own)]
        expected = [images.grad[:, 0], convolutions[-1].bias.grad, *(n.weight.grad for n in norms)]
        expected += [*(n.bias.grad for n in biased), *(c.weight_orig.grad.flatten(1) for c in convolutions)]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        if batch_norm:  # else a vector that is half an iteration ahead would show
            evaluated = literal.eval()(triplet(images, detail))[:, 0]  # by the vectors as they are
            torch.testing.assert_close(network.eval()(lr)[i], evaluated, rtol=1e-4, atol=1e-5)


def test_the_joint_pass_gives_both_players_their_gradients():
    """Eq. 2 written out: the discriminators minimise its two terms, the generators maximise the second."""
    generator, judge, sampling = generator_of(gain=0.7), discriminator_of().eval(), KernelSampling(2)
    hr, lr = torch.rand(KERNELS, 1, 34, 34), torch.rand(KERNELS, 1, 12, 12)
    fake = sampling(hr, generator())
    assert torch.equal(GradientReversal()(fake), fake)
    joint = (judge(lr) - 1).abs().mean() + judge(GradientReversal()(fake)).abs().mean()
    found = torch.autograd.grad(joint, [*judge.parameters(), *generator.parameters()], retain_graph=True)
    loss = (judge(lr) - 1).abs().mean() + judge(fake.detach()).abs().mean()
    expected = torch.autograd.grad(loss, list(judge.parameters()))
    expected += torch.autograd.grad(-judge(fake).abs().mean(), list(generator.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in found)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_no_operator_is_used_that_cuda_starts_once_for_each_kernel():
    """im2col, which is the forward of unfold and the backward of fold."""
    generator, judge, used = generator_of(), discriminator_of(), []

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            used.append(operator.overloadpacket.__name__)
            return operator(*args, **(kwargs or {}))

    with Operators():
        judge(KernelSampling(2)(torch.rand(KERNELS, 2, 40, 40), generator())).mean().backward()
    assert generator.layers[0].grad.norm() > 0 and "col2im" in used and "im2col" not in used
