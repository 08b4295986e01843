"""Unit relevance: modes of known densities, and what leaves it unchanged."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_advise import adaptive_kde, unit_relevance


def test_units_with_known_modes():
    quantiles = torch.linspace(0.01, 0.99, 200, dtype=torch.float64)
    bell = torch.special.ndtri(quantiles)
    one = torch.cat([0.5 + 0.1 * bell, 0.5 + 0.1 * bell])
    two = torch.cat([0.25 + 0.05 * bell, 0.75 + 0.05 * bell])
    above, below = one + 2, one - 2
    units = torch.stack([one, two, above, below]).view(1, 4, 20, 20)
    assert unit_relevance(units).tolist() == [[1, 2, 0, 0]]


def test_minmax_ignores_scale_and_offset_where_unit_does_not():
    torch.manual_seed(0)
    units = torch.rand(1, 6, 7, 7, dtype=torch.float64)
    wide = units * 64 - 16
    assert torch.equal(
        unit_relevance(units * 64, activation_range="minmax"),
        unit_relevance(units, activation_range="minmax"),
    )
    assert unit_relevance(wide, activation_range="minmax").min() >= 1
    assert not torch.equal(unit_relevance(wide), unit_relevance(units))


@given(st.integers(0, 1000), st.integers(-8, 8))
def test_minmax_is_exactly_invariant_to_powers_of_two(seed, power):
    units = torch.randn(1, 5, 6, 6, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(
        unit_relevance(units * 2.0**power, activation_range="minmax"),
        unit_relevance(units, activation_range="minmax"),
    )


@given(st.integers(0, 1000))
def test_permutations_of_positions_and_units(seed):
    generator = torch.Generator().manual_seed(seed)
    units = torch.rand(2, 6, 5, 5, generator=generator)
    relevance = unit_relevance(units)
    positions = torch.randperm(25, generator=generator)
    shuffled = units.flatten(2)[..., positions].view_as(units)
    assert torch.equal(unit_relevance(shuffled), relevance)
    order = torch.randperm(6, generator=generator)
    assert torch.equal(unit_relevance(units[:, order]), relevance[:, order])


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 1, 1), (0, 5, 7, 7), (2, 0, 7, 7)])
def test_nothing_to_estimate(shape):
    relevance = unit_relevance(torch.rand(shape))
    assert relevance.shape == shape[:2]
    assert relevance.dtype == torch.int64
    assert not relevance.any()


def test_spatial_ranks():
    units = torch.rand(2, 3, 24)
    expected = unit_relevance(units)
    for shape in ((2, 3, 4, 6), (2, 3, 2, 3, 4)):
        assert torch.equal(unit_relevance(units.view(shape)), expected)


def test_memory_layout_changes_nothing():
    units = torch.rand(2, 6, 9, 7)
    expected = unit_relevance(units)
    assert torch.equal(
        unit_relevance(units.contiguous(memory_format=torch.channels_last)), expected
    )
    assert torch.equal(unit_relevance(units.permute(0, 1, 3, 2)), unit_relevance(units.mT.clone()))
    assert torch.equal(unit_relevance(units[:, ::2]), expected[:, ::2])
    assert torch.equal(unit_relevance(units[:1, :1]), expected[:1, :1])


def test_bad_input():
    with pytest.raises(ValueError, match="activation_range"):
        unit_relevance(torch.rand(1, 2, 3, 3), activation_range="max")
    with pytest.raises(ValueError, match="Feature maps"):
        unit_relevance(torch.rand(3))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 6.0), (2.0, 2.5)])
def test_any_range_counts_the_modes_of_activations_mapped_from_it(low, high):
    units = torch.randn(2, 6, 7, 7, generator=torch.Generator().manual_seed(1)).double() * 3
    mapped = unit_relevance((units - low) / (high - low))
    assert torch.equal(unit_relevance(units, activation_range=(low, high)), mapped)
    assert torch.equal(unit_relevance(units, activation_range=[0, 1]), unit_relevance(units))


@contextmanager
def default(**what):
    """Other defaults of torch, as a user's program may have."""
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(what.get("dtype", dtype))
        with torch.device(what.get("device", "cpu")):
            yield
    finally:
        torch.set_default_dtype(dtype)


@pytest.mark.parametrize("activation_range", [(0.0, 1.0), (-1.0, 2.0), "minmax"])
@pytest.mark.parametrize(
    "defaults",
    [{"device": "meta"}, {"dtype": torch.float64}, {"dtype": torch.float16}],
    ids=["device", "float64", "float16"],
)
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
def test_defaults_of_torch_change_nothing(monkeypatch, defaults, activation_range, compiled):
    if compiled:
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr("captum_advise.density._engine.compiled", lambda: None)
    # Rows on the common grid, on grids of their own (few samples), and on grids below six points.
    generator = torch.Generator().manual_seed(0)
    units = torch.rand(2, 8, 6, 6, generator=generator)
    units[:, 4:].masked_fill_(units[:, 4:] < 0.9, -3)
    for shape in (units, units[..., :2, :2]):
        expected = adaptive_kde(shape.flatten(2), torch.linspace(0, 1, 36), n_bandwidths=10)
        grid = torch.linspace(0, 1, 36)
        relevance = unit_relevance(shape, activation_range=activation_range)
        with default(**defaults):
            found = adaptive_kde(shape.flatten(2), grid, n_bandwidths=10)
            assert torch.equal(unit_relevance(shape, activation_range=activation_range), relevance)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
