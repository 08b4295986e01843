"""Weights fitted to the confidence lost under occlusion: analytic cases and invariances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_advise._core.fitted_weights import fitted_weights, hidden_cells

N_UNITS = 6
CONFIDENCE = 0.9


def units(seed, n_examples=2, height=5, width=6):
    generator = torch.Generator().manual_seed(seed)
    contributions = torch.randn(n_examples, N_UNITS, height, width, generator=generator)
    relevance = torch.randint(0, 3, (n_examples, N_UNITS), generator=generator)
    positive = torch.rand(n_examples, N_UNITS, generator=generator) > 0.5
    return relevance, contributions, positive


def confidence_without(maps, scale=None):
    """(N, S) of a network that loses confidence in proportion to the hidden mass of ``maps``."""
    mass = torch.einsum("nhw,shw->ns", maps, hidden_cells(*maps.shape[1:]).to(maps))
    largest = mass.abs().max().clamp(min=1e-9) if scale is None else scale
    return CONFIDENCE - 0.1 * mass / largest


def weights_for(maps, relevance, contributions, positive, scale=None):
    return fitted_weights(
        torch.full((len(maps),), CONFIDENCE),
        confidence_without(maps, scale),
        relevance,
        contributions,
        positive,
    )


@given(st.integers(0, 10_000))
def test_about_one_where_grad_cam_predicts_the_loss(seed):
    relevance, contributions, positive = units(seed)
    weights = weights_for(contributions.sum(1), relevance, contributions, positive)
    assert weights.shape == (3, 2, N_UNITS)
    # Not more exactly: the losses of the two fills are brought to one scale.
    torch.testing.assert_close(weights[1:], torch.ones(2, 2, N_UNITS), atol=0.1, rtol=0)


@given(st.integers(0, 10_000), st.integers(0, 2))
def test_the_group_that_matters_has_the_largest_weight(seed, modes):
    relevance, contributions, positive = units(seed, n_examples=1)
    relevance[0, :3] = torch.arange(3)
    matters = relevance[0] == modes
    maps = contributions[:, matters].sum(1)
    weights = weights_for(maps, relevance, contributions, positive)[:, 0]
    if not (weights == 1).all():  # Grad-CAM, where its mass and the loss disagree
        others = weights[2, ~matters]
        assert weights[2, matters].min() > 2 * others.max()


@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_scale_and_order_of_units_do_not_matter(seed, scale):
    relevance, contributions, positive = units(seed)
    maps = contributions[:, :2].sum(1)
    expected = weights_for(maps, relevance, contributions, positive)
    scaled = weights_for(maps, relevance, scale * contributions, positive)
    torch.testing.assert_close(scaled, expected, atol=1e-4, rtol=1e-3)
    order = torch.randperm(N_UNITS, generator=torch.Generator().manual_seed(seed))
    permuted = weights_for(maps, relevance[:, order], contributions[:, order], positive[:, order])
    torch.testing.assert_close(permuted, expected[..., order], atol=1e-4, rtol=1e-3)


@given(st.integers(0, 10_000))
def test_examples_are_independent(seed):
    relevance, contributions, positive = units(seed, n_examples=3)
    maps = contributions[:, 1:4].sum(1)
    maps = maps / maps.abs().amax((1, 2), keepdim=True)
    relevance[1:] += 4
    together = weights_for(maps, relevance, contributions, positive, scale=10)
    for i in range(3):
        one = slice(i, i + 1)
        alone = weights_for(maps[one], relevance[one], contributions[one], positive[one], scale=10)
        torch.testing.assert_close(together[:, one], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (1, 40), (56, 56)])
@pytest.mark.parametrize("constant", [True, False])
def test_maps_of_any_size(size, constant):
    relevance, contributions, positive = units(0, 1, *size)
    maps = torch.zeros_like(contributions) if constant else contributions
    confidence = torch.zeros(1) if constant else torch.full((1,), CONFIDENCE)
    weights = fitted_weights(
        confidence,
        torch.zeros(1, 128) if constant else confidence_without(maps.sum(1)),
        relevance,
        maps,
        positive,
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
