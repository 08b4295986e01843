"""Blocks of rows that are estimated together, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_advise.density._working_grids import candidate_bandwidths


@dataclass(frozen=True)
class Block:
    """Rows that are estimated together, padded to the longest working grid among them.

    Attributes:
        index: (B,) each row's position in the input.
        lengths: (B,) points of its working grid.
        counts: (B, L) its histogram.
        segment: (B,) the run of rows of one length that it belongs to.
        segments: (length, rows) of each run.
        windows: (S, M) candidate bandwidths of each run, in cells.
    """

    index: Tensor
    lengths: Tensor
    counts: Tensor
    segment: Tensor
    segments: tuple[tuple[int, int], ...]
    windows: Tensor

    @property
    def work(self) -> int:
        """A number in proportion to the time that the block takes, roughly."""
        n_bins = (self.counts > 0).sum(-1).clamp(min=self.windows.shape[1])
        return int((self.lengths * n_bins).sum())


def cut(
    lengths: Tensor,
    counts: Tensor,
    is_first: Tensor,
    span: float,
    n_bandwidths: int,
    block_size: int,
) -> list[Block]:
    """Cut the rows that have a density, one of each set of duplicates, into blocks of like rows.

    Args:
        lengths: int64 (R,) points of each row's working grid.
        counts: (R, L) histograms.
        is_first: bool (R,) whether no earlier row is equal.
        span: Length of the grid.
        n_bandwidths: Number of candidate bandwidths.
        block_size: Points times occupied bins of all rows of a block, roughly.
    """
    occupied = (counts > 0).sum(-1)
    has_density = (lengths >= 2) & (occupied > 0) & is_first
    # Rows with the same working grid share tables. Rows with as many bins need little padding.
    order = (lengths * counts.shape[1] + occupied).argsort(stable=True)
    order = order[has_density[order]]
    # Blocks of equal work, in bounded memory.
    work = (lengths * occupied.clamp(min=n_bandwidths))[order].cumsum(0)
    number = torch.div(work, block_size, rounding_mode="floor")
    sizes = torch.unique_consecutive(number, return_counts=True)[1].tolist()
    blocks = []
    for index in torch.split(order, sizes) if sizes else ():
        distinct, segment, n_rows = torch.unique_consecutive(
            lengths[index], return_inverse=True, return_counts=True
        )
        segments = tuple(zip(distinct.tolist(), n_rows.tolist(), strict=True))
        windows = candidate_bandwidths(distinct, span, n_bandwidths)
        longest = segments[-1][0]
        blocks.append(
            Block(index, lengths[index], counts[index, :longest], segment, segments, windows)
        )
    return blocks
