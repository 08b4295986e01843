"""Rows in blocks that are estimated together, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from captum_advise.density._progress import with_progress
from captum_advise.density._working_grids import (
    candidate_bandwidths,
    duplicates,
    histograms,
    onto_grid,
    working_lengths,
)

# From histograms (B, L), the points (B,) of their grids and candidate bandwidths (B, M), in cells,
# to density and bandwidth on these grids, both per span of the grid: (2, B, L).
Estimate: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


def estimate_in_blocks(
    rows: Tensor,
    grid: Tensor,
    span: float,
    n_bandwidths: int,
    estimate: Estimate,
    block_size: int,
) -> Tensor:
    """Density, per span of the grid, and bandwidth, likewise: (2, R, L), NaN where undefined.

    Args:
        rows: (R, n) samples.
        grid: (L,) points.
        span: Length of the grid.
        n_bandwidths: Number of candidate bandwidths.
        estimate: The engine.
        block_size: Points times occupied bins of all rows of a block, roughly.
    """
    result = grid.new_full((2, len(rows), len(grid)), math.nan)
    lengths = working_lengths(rows, grid)
    distinct, which = torch.unique(lengths, return_inverse=True)
    # At least two points: then there is a step even if no row has a working grid.
    counts = histograms(rows, grid, distinct, which, max([2, *distinct.tolist()]))
    windows = candidate_bandwidths(distinct, span, n_bandwidths)
    first = duplicates(lengths, counts)
    occupied = (counts > 0).sum(-1)
    is_first = first == torch.arange(len(rows), device=rows.device)
    has_density = (lengths >= 2) & (occupied > 0) & is_first
    # Rows with the same working grid share tables. Rows with as many bins need little padding.
    order = (lengths * counts.shape[1] + occupied).argsort(stable=True)
    order = order[has_density[order]]
    work = (lengths * occupied.clamp(min=n_bandwidths))[order].cumsum(0)
    number = torch.div(work, block_size, rounding_mode="floor")
    sizes = torch.unique_consecutive(number, return_counts=True)[1].tolist()
    parts = torch.split(order, sizes) if sizes else ()
    for index in with_progress(parts, counts.shape[1]):
        ends = lengths[index]
        block = counts[index, : int(ends[-1])]
        found = estimate(block, ends, windows[which[index]])
        result[:, index] = onto_grid(found, ends, len(grid))
    return result[:, first]
