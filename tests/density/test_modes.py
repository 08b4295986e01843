"""Modes of a density, against SciPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import find_peaks, peak_prominences
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from captum_advise import count_modes
from captum_advise.density import _engine
from captum_advise.density._torch_engine import count_in_torch


@given(st.lists(st.integers(0, 4), min_size=3, max_size=25))
def test_modes_are_peaks(heights):
    expected = len(find_peaks(np.array(heights, dtype=float), plateau_size=(1, None))[0])
    assert count_modes(torch.tensor(heights, dtype=torch.float64), min_prominence=0) == expected


rows_of_heights = st.integers(3, 25).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 8), min_size=n, max_size=n), min_size=1, max_size=4)
)


@given(rows_of_heights, st.floats(0, 0.99))
def test_prominent_modes(rows, min_prominence):
    expected = [_prominent_peaks(row, min_prominence) for row in np.array(rows, dtype=float)]
    density = torch.tensor(rows, dtype=torch.float64)
    assert count_modes(density, min_prominence=min_prominence).tolist() == expected


def _prominent_peaks(row, min_prominence):
    peaks, _ = find_peaks(row, plateau_size=(1, None))
    return int((peak_prominences(row, peaks)[0] >= min_prominence * row.max()).sum())


@given(rows_of_heights, st.floats(0, 0.99))
def test_kernel_and_torch_agree(rows, min_prominence):
    rows = torch.tensor(rows, dtype=torch.float64) - 2
    counter = _engine.mode_counter_for(rows.device, rows.shape[1])
    least = min_prominence * rows.amax(1)
    assert torch.equal(counter(rows, least), count_in_torch(rows, least))


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("min_prominence", [1e-6, 0.3, 0.9])
def test_noise(min_prominence):
    """Thousands of modes a row. What is computed grows with the row, not with its square."""
    rows = torch.rand(8, 12_544, dtype=torch.float64)
    rows[4:] = (rows[4:] * 20).round()
    with _Elements() as made:
        counts = count_modes(rows, min_prominence=min_prominence)
    assert made.total < 60 * rows.numel()
    assert made.largest <= rows.numel()
    assert counts.tolist() == [_prominent_peaks(row, min_prominence) for row in rows.numpy()]


class _Elements(TorchDispatchMode):
    """Counts the elements of all tensors that operations return."""

    def __init__(self):
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor):
                self.total += tensor.numel()
                self.largest = max(self.largest, tensor.numel())
        return result


def test_densities_that_are_not_positive():
    rows = torch.tensor([[-1.0, 0.0, -2.0, -1.0, -3.0], [-3.0, -2.0, -3.0, -1.0, -2.0]])
    expected = [_prominent_peaks(row, 0.5) for row in rows.numpy()]
    assert count_modes(rows, min_prominence=0.5).tolist() == expected == [2, 2]


@given(rows_of_heights, st.floats(0, 0.99), st.sampled_from([2.0**-40, 0.5, 1024.0]))
def test_scale_changes_nothing(rows, min_prominence, scale):
    density = torch.tensor(rows, dtype=torch.float64)
    counts = count_modes(density, min_prominence=min_prominence)
    assert torch.equal(count_modes(density * scale, min_prominence=min_prominence), counts)


def test_rounding_far_from_samples_is_not_a_mode():
    density = torch.tensor([1.0, 3.0, 1.0, 1e-20, 3e-20, 1e-20, 2e-30, 0.0], dtype=torch.float64)
    assert count_modes(density) == 1
    assert count_modes(density, min_prominence=0) == 2


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


@pytest.mark.parametrize(
    ("value", "error"), [("1", TypeError), (-0.1, ValueError), (1, ValueError)]
)
def test_bad_prominence(value, error):
    with pytest.raises(error, match="min_prominence must"):
        count_modes(torch.zeros(4), min_prominence=value)
