"""Places and subgrids of a slab, the features there, and their heads."""

import torch
from torch import nn

from common.networks import PlaceFeatures, ProjectionHeads, RandomPlaces, RandomSubgrid, SlabEncoder

from ..refused import refused


def test_places_are_pixels_of_the_slab_without_repetition():
    slab = torch.zeros(2, 1, 6, 7, 3)
    places = RandomPlaces(20)(slab)
    assert len(places) == len({*places.tolist()}) == 20 and 0 <= places.min() and places.max() < 42
    assert not torch.equal(places, RandomPlaces(20)(slab))
    assert sorted(RandomPlaces(256)(slab).tolist()) == list(range(42))


def test_each_subgrid_is_drawn():
    draw = RandomSubgrid((2, 3, 1))
    drawn = {tuple(draw(torch.zeros(1)).tolist()) for _ in range(200)}
    assert drawn == {(x, y, 0) for x in range(2) for y in range(3)}


def test_features_are_those_of_the_encoder_on_the_subgrid_at_the_places():
    encoder = SlabEncoder(3, 4, layers=3)
    features = PlaceFeatures(encoder, (2, 3, 2), [0, 1, 2, 3])
    hr, subgrid, places = torch.rand(2, 1, 12, 21, 6), torch.tensor([1, 2, 0]), torch.tensor([40, 3, 8])
    found = features(hr, subgrid, places)
    assert features.channels == [3, 4, 4, 4] and found.shape == (2, 3, 15)
    slab = hr[:, :, 1::2, 2::3, 0::2]
    first, activation, second, *_ = encoder.body
    activated = activation(first(slab[:, 0].permute(0, 3, 1, 2)))
    for s, place in enumerate(places.tolist()):
        row, column = divmod(place, 7)
        torch.testing.assert_close(found[:, s, :3], 2 * slab[:, 0, row, column] - 1)
        torch.testing.assert_close(found[:, s, 3:7], activated[:, :, row, column])
        torch.testing.assert_close(found[:, s, 7:11], nn.LeakyReLU(0.2)(second(activated))[:, :, row, column])
        torch.testing.assert_close(found[:, s, 11:], encoder(slab)[:, :, row, column])
    refused(lambda: PlaceFeatures(encoder, (2, 2, 2), [0, 4]), ValueError, "[4]", "0 for the slab to 3")


def test_each_layer_has_a_head_of_its_own():
    heads = ProjectionHeads([3, 4], width=5)
    features = torch.rand(2, 6, 7)
    found = heads(features)
    assert found.shape == (2, 2, 6, 5)
    torch.testing.assert_close(heads(features + torch.tensor([0.0] * 3 + [1.0] * 4))[:, 0], found[:, 0])
    for layer, part in enumerate((features[..., :3], features[..., 3:])):
        first, _, second = heads.heads[layer]
        torch.testing.assert_close(found[:, layer], (part @ first.weight.T).relu() @ second.weight.T)
