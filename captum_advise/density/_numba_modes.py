"""Modes of one row after another, as machine code for CPUs (numba)."""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"

from __future__ import annotations

import math

import torch
from numba import njit
from torch import Tensor


def count_compiled(rows: Tensor, threshold: Tensor) -> Tensor:
    """As :func:`captum_advise.density._torch_modes.count_in_torch`, on a CPU."""
    counts = torch.empty_like(threshold, dtype=torch.int64)
    _count(rows.contiguous().numpy(), threshold.numpy(), counts.numpy())
    return counts


@njit(nogil=True, cache=True)
def _count(rows, thresholds, counts):
    for row in range(len(rows)):
        counts[row] = _modes(rows[row], thresholds[row])


@njit(nogil=True, cache=True)
def _modes(values, threshold):
    """The steps of the reference; ``tops`` is zero where there is no hill."""
    count = tops = 0
    lowest, highest = values[0], -math.inf
    for k in range(1, len(values)):
        point = values[k]
        if tops == 0:
            if point > lowest and point - lowest >= threshold:
                tops, highest = 1, point
            lowest = min(lowest, point)
        elif point > highest:
            tops, highest = 1, point
        elif point == highest:
            tops += values[k - 1] < highest
        elif highest - point >= threshold:
            count += tops
            tops, lowest = 0, point
    return count
