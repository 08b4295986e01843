"""Weights fitted to what the network misses: analytic cases and invariances."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_advise.fitted_weights import fitted_weights, hidden_cells

N_UNITS = 6


@dataclass
class Network:
    """Loses confidence in proportion to the mass of hidden maps, or as it is told."""

    maps: Tensor
    base: float = 0.9

    def confidence_in_target(self):
        return torch.full((len(self.maps),), self.base)

    def confidence_without(self, hidden):
        mass = torch.einsum("nhw,shw->ns", self.maps, hidden.to(self.maps))
        return self.base - 0.1 * mass / mass.abs().max().clamp(min=1e-9)


def units(seed, n_examples=2, height=5, width=6):
    generator = torch.Generator().manual_seed(seed)
    contributions = torch.randn(n_examples, N_UNITS, height, width, generator=generator)
    relevance = torch.randint(0, 3, (n_examples, N_UNITS), generator=generator)
    helpful = torch.rand(n_examples, N_UNITS, generator=generator) > 0.5
    return relevance, contributions, helpful


@given(st.integers(0, 10_000))
def test_about_one_where_grad_cam_foretells_the_loss(seed):
    relevance, contributions, helpful = units(seed)
    weights = fitted_weights(Network(contributions.sum(1)), relevance, contributions, helpful)
    assert weights.shape == (3, 2, N_UNITS)
    # Not more exactly: the losses of the two fillings are brought to one scale.
    torch.testing.assert_close(weights[1:], torch.ones(2, 2, N_UNITS), atol=0.1, rtol=0)


@given(st.integers(0, 10_000), st.integers(0, 2))
def test_the_group_that_matters_has_the_largest_weight(seed, score):
    relevance, contributions, helpful = units(seed, n_examples=1)
    relevance[0, :3] = torch.arange(3)
    matters = relevance[0] == score
    weights = fitted_weights(
        Network(contributions[:, matters].sum(1)), relevance, contributions, helpful
    )[:, 0]
    if not (weights == 1).all():  # Grad-CAM, where its mass and the loss disagree
        others = weights[2, ~matters]
        assert weights[2, matters].min() > 2 * others.max()


@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_scale_and_order_of_units_do_not_matter(seed, scale):
    relevance, contributions, helpful = units(seed)
    network = Network(contributions[:, :2].sum(1))
    expected = fitted_weights(network, relevance, contributions, helpful)
    scaled = fitted_weights(network, relevance, scale * contributions, helpful)
    torch.testing.assert_close(scaled, expected, atol=1e-4, rtol=1e-3)
    order = torch.randperm(N_UNITS, generator=torch.Generator().manual_seed(seed))
    found = fitted_weights(network, relevance[:, order], contributions[:, order], helpful[:, order])
    torch.testing.assert_close(found, expected[..., order], atol=1e-4, rtol=1e-3)


@given(st.integers(0, 10_000))
def test_examples_are_independent(seed):
    relevance, contributions, helpful = units(seed, n_examples=3)
    maps = contributions[:, 1:4].sum(1)
    # What a confidence is must not depend on the others either.
    maps = maps / maps.abs().amax((1, 2), keepdim=True)
    relevance[1:] += 4

    class Fixed(Network):
        def confidence_without(self, hidden):
            return self.base - 0.01 * torch.einsum("nhw,shw->ns", self.maps, hidden.to(self.maps))

    together = fitted_weights(Fixed(maps), relevance, contributions, helpful)
    for i in range(3):
        one = slice(i, i + 1)
        alone = fitted_weights(Fixed(maps[one]), relevance[one], contributions[one], helpful[one])
        torch.testing.assert_close(together[:, one], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (1, 40), (56, 56)])
@pytest.mark.parametrize("constant", [True, False])
def test_maps_of_any_size(size, constant):
    relevance, contributions, helpful = units(0, 1, *size)
    contributions = torch.zeros_like(contributions) if constant else contributions
    weights = fitted_weights(
        Network(contributions.sum(1), base=0.0 if constant else 0.9),
        relevance,
        contributions,
        helpful,
    )
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    if constant or size == (1, 1):
        assert (weights == 1).all()


def test_hidden_cells():
    before = torch.get_rng_state()
    cells = hidden_cells(7, 7)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(cells, hidden_cells(7, 7))
    sizes = cells.flatten(1).sum(1)
    assert sizes.diff().ge(0).all()
    assert sizes.min() == 1
    assert sizes.max() == 48
    # Every cell is hidden about half of the time.
    assert (cells.float().mean(0) - 0.5).abs().max() < 0.2
