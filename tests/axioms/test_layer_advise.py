"""Axioms that ADVISE fulfils only under a condition."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation, LayerIntegratedGradients
from torch import nn

from captum_advise import LayerAdvise
from captum_advise.axioms import Case, NetworkSpec
from captum_advise.axioms.networks import SmallNetwork
from captum_advise.relevance import unit_relevance


@pytest.mark.parametrize("activation_range", [(0.0, 1.0), "minmax"])
def test_maps_of_two_positions_have_no_modes(activation_range):
    # Under "minmax" the two samples lie at the two ends, so no row has a density.
    maps = torch.tensor([[[0.25, 0.5], [3.0, -1.0], [0.0, 0.0]]])
    assert not unit_relevance(maps, activation_range=activation_range).any()


@pytest.mark.parametrize("unit_selection", ["avx", "average_drop", 1, None])
def test_no_grad_of_the_caller(unit_selection):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    inputs = torch.rand(2, 3, 8, 8)
    advise = LayerAdvise(model, model[0])
    expected = advise.attribute(inputs, 1, unit_selection=unit_selection)
    with torch.no_grad():
        attributions = advise.attribute(inputs, 1, unit_selection=unit_selection)
        if unit_selection is None:
            grad_cam = LayerGradCam(model, model[0]).attribute(inputs, 1)
            torch.testing.assert_close(attributions, grad_cam, rtol=0, atol=0)
    torch.testing.assert_close(attributions, expected, rtol=0, atol=0)


# --- counterexamples, each with the condition under which the axiom does hold


@pytest.fixture
def two_units():
    """Two units whose activations lie in two clusters of [0, 1]."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    ).double()
    model[0].weight.data = torch.tensor([0.9, 0.3], dtype=torch.float64).view(2, 1, 1, 1)
    model[3].weight.data = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    source = torch.Generator().manual_seed(0)
    low = 0.1 + 0.1 * torch.rand(32, generator=source, dtype=torch.float64)
    high = 0.8 + 0.1 * torch.rand(32, generator=source, dtype=torch.float64)
    inputs = torch.cat([low, high]).view(1, 1, 8, 8)
    return model, inputs


def rescaled(model, unit, factor):
    other = nn.Sequential(*(copy.deepcopy(part) for part in model))
    other[0].weight.data[unit] *= factor
    other[3].weight.data[:, unit] /= factor
    return other


def test_rescaling_a_unit_changes_relevance_under_unit_and_not_under_minmax(two_units):
    model, inputs = two_units
    other = rescaled(model, 0, 8.0)
    torch.testing.assert_close(other(inputs), model(inputs))

    def relevance(network, activation_range):
        advise = LayerAdvise(network, network[0], activation_range=activation_range)
        return advise.unit_relevance(inputs)

    # Eight times as large, one cluster is at 0.72 to 1.44 and the other is out of [0, 1].
    assert relevance(model, (0.0, 1.0))[0, 0] == 2
    assert relevance(other, (0.0, 1.0))[0, 0] != 2
    assert torch.equal(relevance(model, "minmax"), relevance(other, "minmax"))

    def attributions(network, activation_range):
        advise = LayerAdvise(network, network[0], activation_range=activation_range)
        return advise.attribute(inputs, 0, unit_selection=2)

    assert not torch.equal(attributions(model, (0.0, 1.0)), attributions(other, (0.0, 1.0)))
    assert torch.equal(attributions(model, "minmax"), attributions(other, "minmax"))


def test_for_fixed_units_rescaling_changes_no_contribution(two_units):
    model, inputs = two_units
    other = rescaled(model, 0, 8.0)
    contributions, expected = (
        LayerAdvise(network, network[0]).attribute(
            inputs, 0, unit_selection=None, attr_dim_summation=False
        )
        for network in (other, model)
    )
    assert torch.equal(contributions, expected)


def test_factors_that_are_not_a_power_of_two_hold_up_to_rounding(two_units):
    model, inputs = two_units
    other = rescaled(model, 0, 3.7)
    attributions, expected = (
        LayerAdvise(network, network[0], activation_range="minmax").attribute(
            inputs, 0, unit_selection=2
        )
        for network in (other, model)
    )
    torch.testing.assert_close(attributions, expected)


def test_pooled_heads_make_grad_cam_complete_and_a_group_its_share(two_units):
    """After a mean and an affine map, M sums to g(A) - g(0), so Sensitivity(a) holds."""
    model, inputs = two_units
    total = LayerAdvise(model, model[0]).attribute(inputs, 0, unit_selection=None).sum()
    with torch.no_grad():
        difference = model(inputs)[0, 0] - model[3].bias[0]
    torch.testing.assert_close(total, difference)
    advise = LayerAdvise(model, model[0])
    shares = [
        advise.attribute(inputs, 0, unit_selection=int(relevance)).sum()
        for relevance in advise.unit_relevance(inputs).unique()
    ]
    torch.testing.assert_close(sum(shares), difference)


def test_sensitivity_a_fails_where_the_network_is_saturated():
    """f = 1 - ReLU(1 - x), Sundararajan et al.'s own example: f(0) = 0, f(2) = 1, gradient zero."""

    class Saturated(nn.Module):
        def forward(self, pooled):
            output = 1 - torch.relu(1 - pooled)
            return torch.cat([output, -output], 1)

    model = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Saturated()
    ).double()
    model[0].weight.data.fill_(1)
    inputs = torch.full((1, 1, 4, 4), 2.0, dtype=torch.float64)
    assert model(inputs)[0, 0] - model(0 * inputs)[0, 0] == 1
    assert not LayerGradCam(model, model[0]).attribute(inputs, 0).any()
    with pytest.warns(UserWarning, match="no group of units"):
        assert not LayerAdvise(model, model[0]).attribute(inputs, 0).any()
    path = LayerIntegratedGradients(model, model[0]).attribute(inputs, target=0)
    assert float(path.sum()) == pytest.approx(1, abs=0.05)


def test_a_location_without_influence_is_attributed_by_grad_cam_and_advise():
    """The head reads the left half only; the unit's weight applies to the right half as well."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(16, 2)).double()
    model[0].weight.data.fill_(1)
    weights = torch.zeros(2, 4, 4, dtype=torch.float64)
    weights[0, :, :2] = 1
    model[2].weight.data = weights.flatten(1)
    inputs = torch.linspace(0.1, 0.9, 16, dtype=torch.float64).view(1, 1, 4, 4)
    assert LayerGradCam(model, model[0]).attribute(inputs, 0)[..., 2:].gt(0).all()
    assert LayerAdvise(model, model[0]).attribute(inputs, 0)[..., 2:].gt(0).all()
    exact = LayerGradientXActivation(model, model[0]).attribute(inputs, 0)
    assert not exact[..., 2:].any()
    assert exact[..., :2].gt(0).all()


def test_a_unit_without_influence_has_a_weight_of_exactly_zero(two_units):
    model, inputs = two_units
    model[3].weight.data[:, 1] = 0
    advise = LayerAdvise(model, model[0])
    units = advise.attribute(inputs, 0, unit_selection=None, attr_dim_summation=False)
    assert not units[:, 1].any()
    # Its relevance is not zero: relevance is about activations alone.
    assert advise.unit_relevance(inputs)[0, 1] > 0


def test_groups_with_equal_masks_tie_and_the_lowest_relevance_wins_in_every_batch():
    """All groups have evidence at the same single location, so masks and AVX are equal."""
    case = Case(
        spec=NetworkSpec(
            seed=8098,
            size=5,
            units=2,
            kernel=1,
            stride=2,
            bias=False,
            batch_norm=True,
            activation="tanh",
            pooling="max",
            head="flat",
            classes=2,
        ),
        targets=(1, 1, 0),
        input_seed=5418,
    )
    model = SmallNetwork(case.spec)
    advise = LayerAdvise(model, model.layer)
    together = advise.explain(case.inputs, case.target)
    first, second = (candidate.metrics.avx.item() for candidate in together.candidates[1])
    assert first == pytest.approx(second, abs=1e-12)
    alone = advise.explain(case.inputs[1:2], case.target[1:2])
    assert together.selected[1] == alone.selected[0] == 0
