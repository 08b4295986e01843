"""The density of a block of histograms: steps 3 to 7 in order."""

from __future__ import annotations

from torch import Tensor

from captum_advise.density._balloon import BalloonEstimator
from captum_advise.density._bandwidth_cache import CachedCosts
from captum_advise.density._blocks import Block
from captum_advise.density._local_costs import optimal_bandwidths
from captum_advise.density._pointwise import PointwiseCosts
from captum_advise.density._stiffness_search import Costs, search_stiffness
from captum_advise.density._windows import Smoother, WindowChoices


def estimate_block(block: Block, *, pointwise: bool = False) -> tuple[Tensor, Tensor]:
    """Density (per span of the grid) and bandwidth (likewise) on the working grids, (B, L).

    Args:
        block: The histograms.
        pointwise: Compute more than is needed, so that nothing waits for a GPU.
    """
    optimal = optimal_bandwidths(block.counts, block.segments, block.windows)
    choices = WindowChoices.of(optimal, block.windows, block.segment)
    estimator = BalloonEstimator(block.counts)
    grids = block.windows, block.segment, block.lengths
    costs: Costs = (
        PointwiseCosts(choices, *grids, estimator)
        if pointwise
        else CachedCosts(Smoother(choices, *grids, block.counts.shape[1]), estimator)
    )
    inverse = search_stiffness(costs, len(block.lengths), block.lengths.device)
    density = estimator.density(inverse)
    cells = (block.lengths - 1)[:, None]
    return density / density.sum(-1, keepdim=True) * cells, 1 / (inverse * cells)
