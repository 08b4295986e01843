"""The search for the stiffness of least cost, on histograms.

Step 7 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3): a
golden-section search for the stiffness that ties windows to bandwidths, in all rows at once.

Positions and bandwidths are counted in *cells*: the step of the working grid is one. Densities
and costs in cells differ from the true ones by a constant factor per row, which does not affect
the search.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from captum_advise.density._balloon import BalloonEstimator
from captum_advise.density._bandwidth_cache import BandwidthCache, CacheKey
from captum_advise.density._windows import Smoother

GOLDEN = (math.sqrt(5) - 1) / 2
MAX_STEPS = 29
BRACKET = 1e-5
# Costs can be exactly flat; rounding must not decide which way the search goes there.
COST_ROUNDING = 1e-12


def search_stiffness(smoother: Smoother, estimator: BalloonEstimator) -> Tensor:
    """Inverse bandwidth (B, L) at the stiffness where each row's search ends.

    Args:
        smoother: Gives the bandwidths at a stiffness.
        estimator: Gives their cost.
    """
    cache = BandwidthCache(smoother)

    def evaluate(key: CacheKey, rows: Tensor) -> Tensor:
        return estimator.cost(cache.inverse_bandwidth(key, rows), rows)

    low = torch.full_like(smoother.widest, 1e-12)
    high = torch.ones_like(low)
    left = GOLDEN * low + (1 - GOLDEN) * high
    right = (1 - GOLDEN) * low + GOLDEN * high
    side = torch.zeros_like(cache.rows)
    left_cost = evaluate(cache.key(left, side), cache.rows)
    side = side + 1
    key = cache.key(right, side)
    right_cost = evaluate(key, cache.rows)
    for _ in range(MAX_STEPS):
        active = high - low > BRACKET * (left + right)
        if not active.any():
            break
        gain = right_cost - left_cost
        go_left = gain > COST_ROUNDING * torch.maximum(left_cost.abs(), right_cost.abs())
        to_left, to_right = active & go_left, active & ~go_left
        high = torch.where(to_left, right, high)
        low = torch.where(to_right, left, low)
        next_left = GOLDEN * low + (1 - GOLDEN) * high
        next_right = (1 - GOLDEN) * low + GOLDEN * high
        latest = torch.where(to_left, next_left, torch.where(to_right, next_right, key.stiffness))
        side = torch.where(active, (~go_left).long(), side)

        key = cache.key(latest, side)
        rows = active.nonzero().squeeze(1)
        cost = left_cost.clone()
        cost[rows] = evaluate(key, rows)
        left, right = (
            torch.where(to_left, latest, torch.where(to_right, right, left)),
            torch.where(to_right, latest, torch.where(to_left, left, right)),
        )
        left_cost, right_cost = (
            torch.where(to_left, cost, torch.where(to_right, right_cost, left_cost)),
            torch.where(to_right, cost, torch.where(to_left, left_cost, right_cost)),
        )
    return cache.inverse_bandwidth(key, cache.rows)
