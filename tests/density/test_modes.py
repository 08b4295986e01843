"""Modes of a density, against SciPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import find_peaks

from captum_advise import count_modes


@given(st.lists(st.integers(0, 4), min_size=3, max_size=25))
def test_modes_are_peaks(heights):
    expected = len(find_peaks(np.array(heights, dtype=float), plateau_size=(1, None))[0])
    assert count_modes(torch.tensor(heights, dtype=torch.float64)) == expected


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_modes_mirror(heights):
    density = torch.tensor(heights, dtype=torch.float64)
    assert count_modes(density) == count_modes(density.flip(0))


def test_modes_shapes():
    assert count_modes(torch.zeros(2, 3, 7)).shape == (2, 3)
    assert count_modes(torch.zeros(2, 2)).tolist() == [0, 0]
    assert count_modes(torch.full((1, 9), math.nan)).tolist() == [0]
    assert count_modes(torch.zeros(4, 0)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("density", "error"),
    [
        ([0.0, 1.0, 0.0], TypeError),
        (np.zeros(3), TypeError),
        (torch.zeros(3) * 1j, TypeError),
        (torch.tensor(1.0), ValueError),
    ],
)
def test_bad_input(density, error):
    with pytest.raises(error, match="density must"):
        count_modes(density)
