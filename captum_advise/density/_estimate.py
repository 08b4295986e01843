"""The density of a block of histograms: steps 3 to 7 in order."""

from __future__ import annotations

from torch import Tensor

from captum_advise.density._balloon import BalloonEstimator
from captum_advise.density._blocks import Block
from captum_advise.density._local_costs import optimal_bandwidths
from captum_advise.density._stiffness_search import search_stiffness
from captum_advise.density._windows import Smoother, WindowChoices


def estimate_block(block: Block) -> tuple[Tensor, Tensor]:
    """Density (per span of the grid) and bandwidth (likewise) on the working grids, (B, L)."""
    optimal = optimal_bandwidths(block.counts, block.segments, block.windows)
    smoother = Smoother(
        WindowChoices.of(optimal, block.windows, block.segment),
        block.windows,
        block.segment,
        block.lengths,
        block.counts.shape[1],
    )
    estimator = BalloonEstimator(block.counts)
    inverse = search_stiffness(smoother, estimator)
    density = estimator.density(inverse)
    cells = (block.lengths - 1)[:, None]
    return density / density.sum(-1, keepdim=True) * cells, 1 / (inverse * cells)
