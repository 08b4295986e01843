"""Densities of a block of histograms, and modes, in torch: the reference of compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise.density._balloon import BalloonEstimator
from captum_advise.density._blocks import Block
from captum_advise.density._local_costs import optimal_bandwidths
from captum_advise.density._stiffness_search import search_stiffness
from captum_advise.density._windows import WindowedBandwidths


def estimate_in_torch(block: Block) -> Tensor:
    """Density and bandwidth on the working grids, both per span of the grid: (2, B, L).

    These are steps 4 to 7 in order.
    """
    optimal = optimal_bandwidths(block.counts, block.segments, block.windows)
    bandwidths = WindowedBandwidths(optimal, block.windows, block.segment, block.lengths)
    balloon = BalloonEstimator(block.counts)

    def cost_at(stiffness: Tensor) -> Tensor:
        inverse = bandwidths.inverse_at(stiffness)
        return balloon.cost(balloon.density(inverse), inverse)

    stiffness = search_stiffness(cost_at, block.counts)
    inverse = bandwidths.inverse_at(stiffness)
    density = balloon.density(inverse)
    cells = (block.lengths - 1)[:, None]
    density = density / density.sum(-1, keepdim=True) * cells
    return torch.stack([density, 1 / (inverse * cells)])


def count_in_torch(rows: Tensor, threshold: Tensor) -> Tensor:
    """How many maxima of each row (R, L) have a prominence of at least a threshold (R,), int64.

    From left to right a row is a chain of hills: up by the threshold or more from the lowest point
    so far, and down by the threshold or more from the highest. The prominent maxima are the highest
    points of each hill, of which there may be several. Under a threshold of zero or less, every
    maximum is a hill.
    """
    points = rows.T.contiguous()
    # On a hill the lowest point is minus infinity, and elsewhere the highest one is.
    before, lowest = points[0], points[0]
    highest = torch.full_like(threshold, -torch.inf)
    counts = torch.zeros_like(threshold, dtype=torch.int64)
    tops = torch.zeros_like(counts)
    for point in points[1:]:
        rises = (point - lowest >= threshold) & (point > lowest)
        # A flat top counts once.
        again = (point == highest) & (before < highest)
        tops = torch.where(point > highest, 1, tops + again)
        highest = torch.where(rises, torch.maximum(highest, point), highest)
        falls = (highest - point >= threshold) & (point < highest)
        counts += tops * falls
        lowest = torch.where(rises, -torch.inf, torch.minimum(lowest, point))
        lowest = torch.where(falls, point, lowest)
        highest = highest.masked_fill(falls, -torch.inf)
        before = point
    return counts
