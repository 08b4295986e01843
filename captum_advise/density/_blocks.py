"""Rows in blocks that are estimated together, in bounded memory."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from captum_advise.density._working_grids import (
    candidate_bandwidths,
    duplicates,
    histograms,
    onto_grid,
    working_lengths,
)

# Seconds: shorter waits need no sign, and longer ones a warning.
_BAR_AFTER = 2.0
_WARN_ABOVE = 60.0
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, about {remaining} more"


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
    parts = torch.split(order, sizes) if sizes else ()
    for index in _with_progress(parts, counts.shape[1]):
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


def _with_progress(parts: Sequence[Tensor], n_points: int) -> Iterator[Tensor]:
    """Yield parts of equal work one by one; show a bar on a terminal, and warn of a long wait."""
    start, warned = time.monotonic(), False
    bar = tqdm(parts, "densities", delay=_BAR_AFTER, leave=False, disable=None, bar_format=_BAR)
    for done, part in enumerate(bar, 1):
        yield part
        remaining = (time.monotonic() - start) * (len(parts) - done) / done
        if remaining > _WARN_ABOVE and not warned:
            warned = True
            warnings.warn(
                f"Densities on {n_points} grid points will take about {remaining / 60:.0f} more "
                "minutes: name a deeper layer or make the inputs smaller if that is too long.",
                stacklevel=2,
            )
