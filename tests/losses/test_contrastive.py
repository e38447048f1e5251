"""The patchwise contrastive loss against a loop over places, and where its gradient goes."""

import math

import torch
from torch.nn import functional as F

from common.losses import PatchContrastiveLoss
from tests.refused import refused


def test_it_is_the_cross_entropy_of_finding_the_own_place():
    queries, keys = torch.randn(2, 2, 3, 5, 4, dtype=torch.float64)
    found = PatchContrastiveLoss(0.2)(queries, keys)
    each, classified = [], []
    for query, key in zip(queries.flatten(0, 1), keys.flatten(0, 1), strict=True):
        cosines = [[float(q @ k / q.norm() / k.norm()) / 0.2 for k in key] for q in query]
        each += [-math.log(math.exp(row[s]) / sum(map(math.exp, row))) for s, row in enumerate(cosines)]
        classified.append(F.cross_entropy(torch.tensor(cosines), torch.arange(5)))
    torch.testing.assert_close(found.item(), sum(each) / len(each))
    torch.testing.assert_close(found.float(), torch.stack(classified).mean())


def test_only_queries_have_a_gradient():
    queries, keys = torch.randn(2, 1, 2, 6, 4).requires_grad_()
    queries, keys = queries.detach().requires_grad_(), keys.detach().requires_grad_()
    PatchContrastiveLoss()(queries, keys).backward()
    assert queries.grad.abs().min() > 0 and keys.grad is None
    refused(lambda: PatchContrastiveLoss(0), ValueError, "temperature is 0")
