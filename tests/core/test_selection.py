"""What each kind of ``unit_selection`` selects, compared with ADVISE by hand."""

import by_hand
import pytest
import torch
import toy_networks
from toy_networks import network

from captum_advise import LayerAdvise, PixelSpace
from captum_advise.metrics import deletion_auc, insertion_auc


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
        confident = explain(net, image, unit_selection="confidence")
        assert confident.selected.item() == smallest_drop


def test_faithfulness_by_hand(images):
    selected_names = []
    for seed, image in enumerate(torch.cat([images, images.flip(3), images.flip(2)])[:, None]):
        net = network(seed=seed)
        target = int(net(image).argmax(1))
        contributions = by_hand.Contributions.of(net, image, target)
        weights = by_hand.faithful_weights(net, image, target, contributions)
        expected = by_hand.candidates(net, image, target, contributions, weights)
        gains = gains_over_all(net, image, target, expected)
        best = max(gain[1:].sum() for gain in gains.values() if (gain > -5e-6).all())
        explanation = explain(net, image, unit_selection="faithfulness")
        # By its map, because rounding may decide between two that are equally good.
        attributions = explanation.attributions
        name = min(expected, key=lambda name: (expected[name][0] - attributions).abs().sum())
        torch.testing.assert_close(attributions, expected[name][0], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(
            explanation.metrics.avx, expected[name][1].avx, rtol=1e-3, atol=1e-4
        )
        assert gains[name].min() > -2e-5
        assert gains[name][1:].sum() > best - 2e-5
        assert explanation.selected.item() == -1
        selected_names.append(name)
    assert len(set(selected_names)) > 2
    assert "all" in selected_names


def gains_over_all(net, image, target, candidates):
    """Name to gains in AVX, insertion and deletion."""
    classes, black = torch.tensor([target]), torch.zeros(1, 3, 1, 1)
    metrics = {}
    for name, (signed, protocol) in candidates.items():
        mask = by_hand.mask_of(signed, image)
        inserted = insertion_auc(net, image, mask, classes, steps=8)
        deleted = deletion_auc(net, image, mask, classes, baselines=black, steps=8)
        metrics[name] = torch.stack([protocol.avx, inserted, -deleted])[:, 0].detach()
    return {name: values - metrics["all"] for name, values in metrics.items()}
