"""Blocks of rows through the compiled kernels, on as many threads as torch uses; and modes."""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, untyped-decorator"

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import torch
from numba import njit
from torch import Tensor

from captum_advise.density._blocks import Block
from captum_advise.density._numba_kernels import (
    LONGEST_DIRECT,
    estimate_long_rows,
    estimate_rows,
)

# Fewer points are not worth a thread.
_POINTS_PER_THREAD = 1 << 14


def estimate_compiled(block: Block) -> Tensor:
    """As :func:`captum_advise.density._torch_engine.estimate_in_torch`, on a CPU."""
    n_rows, longest = block.counts.shape
    estimate = block.counts.new_zeros(2, n_rows, longest)
    results = estimate.numpy()
    arrays = [
        tensor.contiguous().numpy()
        for tensor in (block.counts, block.lengths, block.windows, block.segment)
    ]
    n_parts = min(torch.get_num_threads(), -(-n_rows * longest // _POINTS_PER_THREAD), n_rows)
    # Rows come in the order of their grids' lengths: as many points to each thread, not rows.
    points = block.lengths.cumsum(0)
    shares = torch.arange(1, n_parts, device=points.device) * points[-1] // n_parts
    n_short = int((block.lengths <= LONGEST_DIRECT).sum())
    ends = [0, *torch.searchsorted(points, shares).tolist(), n_rows]

    def run(part: int) -> None:
        first, last = ends[part], ends[part + 1]
        middle = min(max(first, n_short), last)
        if first < middle:
            estimate_rows(*arrays, first, middle, *results)  # type: ignore[call-arg]
        if middle < last:
            estimate_long_rows(*arrays, middle, last, *results)  # type: ignore[call-arg]

    if n_parts == 1:
        run(0)
    else:
        with ThreadPoolExecutor(n_parts) as pool:
            list(pool.map(run, range(n_parts)))
    return estimate


def count_compiled(rows: Tensor, threshold: Tensor) -> Tensor:
    """As :func:`captum_advise.density._torch_engine.count_in_torch`, on a CPU."""
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
