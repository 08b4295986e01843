"""The density of a block of histograms: steps 3 to 7 in order."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise.density._balloon import BalloonEstimator
from captum_advise.density._blocks import Block
from captum_advise.density._local_costs import optimal_bandwidths
from captum_advise.density._stiffness_search import search_stiffness
from captum_advise.density._windows import Smoother, WindowChoices

# At this tolerance and above, no cost is evaluated whose rounding in single precision, some 1e-7,
# could matter: costs differ by about the square of the bracket's width.
_SINGLE_PRECISION_FROM = 0.05


def estimate_block(block: Block, tolerance: float) -> tuple[Tensor, Tensor]:
    """Density (per span of the grid) and bandwidth (likewise) on the working grids, (B, L).

    Under a tolerance the search's costs have single precision. The result never has.
    """
    fast = tolerance >= _SINGLE_PRECISION_FROM
    optimal = optimal_bandwidths(block.counts, block.segments, block.windows, thinned=fast)
    smoother = Smoother(
        WindowChoices.of(optimal, block.windows, block.segment),
        block.windows,
        block.segment,
        block.lengths,
        block.counts.shape[1],
    )
    exact = BalloonEstimator(block.counts, torch.float64)
    cost_estimator = BalloonEstimator(block.counts, torch.float32) if fast else exact
    inverse = search_stiffness(smoother, cost_estimator, tolerance)
    density = exact.density(inverse)
    cells = (block.lengths - 1)[:, None]
    return density / density.sum(-1, keepdim=True) * cells, 1 / (inverse * cells)
