"""The density of a block of histograms in torch: steps 4 to 7 in order, on any device.

This is the reference of the compiled kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise.density._balloon import BalloonEstimator
from captum_advise.density._blocks import Block
from captum_advise.density._local_costs import optimal_bandwidths
from captum_advise.density._stiffness_search import search_stiffness
from captum_advise.density._windows import WindowedBandwidths


def estimate_in_torch(block: Block) -> Tensor:
    """Density and bandwidth on the working grids, both per span of the grid: (2, B, L)."""
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
