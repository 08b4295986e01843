import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_advise.metrics import sparseness


def test_a_pair_by_hand():
    """The Lorenz curve of 1 and 3 runs through (1/2, 1/4): the Gini index is 1/4."""
    torch.testing.assert_close(sparseness(torch.tensor([[3.0, -1.0]])), torch.tensor([0.25]))
    assert sparseness(torch.zeros(2, 1, 3, 3)).tolist() == [0, 0]


@given(st.integers(1, 60), st.integers(0, 99), st.floats(0.001, 1000))
def test_scale_and_order_do_not_count(n_pixels, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, n_pixels, generator=generator)
    index = sparseness(maps)
    assert ((index >= 0) & (index <= 1 - 1 / n_pixels + 1e-6)).all()
    torch.testing.assert_close(sparseness(scale * maps), index, atol=1e-5, rtol=0)
    order = torch.randperm(n_pixels, generator=generator)
    torch.testing.assert_close(sparseness(maps[:, order].flip(0)).flip(0), index)
    # A power above one makes a map sparser.
    assert (sparseness(maps.abs() ** 2) >= index - 1e-6).all()


def test_maps_are_checked():
    with pytest.raises(ValueError, match="with pixels"):
        sparseness(torch.rand(3))
    with pytest.raises(TypeError, match="maps must be a real tensor"):
        sparseness([[1.0]])
