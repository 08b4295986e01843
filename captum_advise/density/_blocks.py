"""Rows in blocks that are estimated together, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_advise.density._working_grids import (
    candidate_bandwidths,
    duplicates,
    histograms,
    onto_grid,
    working_lengths,
)


@dataclass(frozen=True)
class Block:
    """Rows that are estimated together, padded to the longest working grid among them.

    Attributes:
        lengths: (B,) points of each row's working grid.
        counts: (B, L) its histogram.
        segment: (B,) the run of rows of one length that it belongs to.
        segments: (length, rows) of each run.
        windows: (S, M) candidate bandwidths of each run, in cells.
    """

    lengths: Tensor
    counts: Tensor
    segment: Tensor
    segments: tuple[tuple[int, int], ...]
    windows: Tensor


def estimate_in_blocks(
    rows: Tensor,
    grid: Tensor,
    span: float,
    n_bandwidths: int,
    estimate: Callable[[Block], Tensor],
    block_size: int,
) -> Tensor:
    """Density, per span of the grid, and bandwidth, likewise: (2, R, L), NaN where undefined.

    Args:
        rows: (R, n) samples.
        grid: (L,) points.
        span: Length of the grid.
        n_bandwidths: Number of candidate bandwidths.
        estimate: From a block to its density and bandwidth on the working grids, (2, B, longest).
        block_size: Points times occupied bins of all rows of a block, roughly.
    """
    result = grid.new_full((2, len(rows), len(grid)), math.nan)
    lengths = working_lengths(rows, grid)
    distinct, which = torch.unique(lengths, return_inverse=True)
    # At least two points: then there is a step even if no row has a working grid.
    counts = histograms(rows, grid, distinct, which, max([2, *distinct.tolist()]))
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
    for index in torch.split(order, sizes) if sizes else ():
        block = _block(lengths[index], counts[index], span, n_bandwidths)
        result[:, index] = onto_grid(estimate(block), block.lengths, len(grid))
    return result[:, first]


def _block(lengths: Tensor, counts: Tensor, span: float, n_bandwidths: int) -> Block:
    distinct, segment, n_rows = torch.unique_consecutive(
        lengths, return_inverse=True, return_counts=True
    )
    segments = tuple(zip(distinct.tolist(), n_rows.tolist(), strict=True))
    windows = candidate_bandwidths(distinct, span, n_bandwidths)
    return Block(lengths, counts[:, : segments[-1][0]], segment, segments, windows)
