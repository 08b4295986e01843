"""What each kind of ``unit_selection`` selects, compared with ADVISE by hand."""

import by_hand
import pytest
import torch
import toy_networks
from toy_networks import network

from captum_advise import LayerAdvise, PixelSpace


@pytest.fixture
def images():
    return toy_networks.images(5)


def explain(net, image, **options):
    advise = LayerAdvise(net, net.layer, pixel_space=PixelSpace.identity())
    return advise.explain(image, **options)


def test_groups_by_hand(images):
    net = network()
    for image in images[:, None]:
        target = int(net(image).argmax())
        contributions = by_hand.Contributions.of(net, image, target)
        groups = by_hand.group_weights(contributions.relevance)
        expected = by_hand.candidates(net, image, target, contributions, groups)
        explanation = explain(net, image)
        assert explanation.target.tolist() == [target]
        assert [c.relevance for c in explanation.candidates[0]] == list(expected)
        for candidate in explanation.candidates[0]:
            metrics = expected[candidate.relevance][1]
            torch.testing.assert_close(candidate.metrics.avx, metrics.avx[0])
            torch.testing.assert_close(
                candidate.metrics.class_sensitivity, metrics.class_sensitivity[0]
            )
            of_units = explanation.unit_relevance[0, candidate.units]
            assert of_units.unique().item() == candidate.relevance

        best = max(expected, key=lambda q: expected[q][1].avx.item())
        assert explanation.selected.item() == best
        torch.testing.assert_close(explanation.attributions, expected[best][0])
        torch.testing.assert_close(explanation.metrics.avx, expected[best][1].avx)
        smallest_drop = min(expected, key=lambda q: expected[q][1].average_drop.item())
        confident = explain(net, image, unit_selection="average_drop")
        assert confident.selected.item() == smallest_drop
