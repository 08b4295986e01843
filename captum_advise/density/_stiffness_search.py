"""The search for the stiffness of least cost, on histograms.

Step 7 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3): a
golden-section search for the stiffness that ties windows to bandwidths, in all rows at once.

Positions and bandwidths are counted in *cells*: the step of the working grid is one. Densities
and costs in cells differ from the true ones by a constant factor per row, which does not affect
the search.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

GOLDEN = (math.sqrt(5) - 1) / 2
MAX_STEPS = 29
BRACKET = 1e-5
# Costs can be exactly flat; rounding must not decide which way the search goes there.
COST_ROUNDING = 1e-12


class Costs(Protocol):
    """What the search asks for: costs of all rows at once, each at its own stiffness."""

    # Whether to compute costs of rows whose search has ended: a GPU would wait to know which.
    needs_all: bool

    def at(self, stiffness: Tensor, side: Tensor, active: Tensor | None = None) -> Tensor:
        """Cost (B,), valid where rows are active.

        Args:
            stiffness: (B,).
            side: int64 (B,) 0 if this is the left one of the two points of the search, or 1.
            active: bool (B,), None for all rows.
        """

    def inverse_bandwidth(self) -> Tensor:
        """One over the bandwidth, (B, L), where :meth:`at` was called last."""


def search_stiffness(costs: Costs, n_rows: int, device: torch.device) -> Tensor:
    """Inverse bandwidth (B, L) at the stiffness where each row's search ends."""
    low = torch.full((n_rows,), 1e-12, dtype=torch.float64, device=device)
    high = torch.ones_like(low)
    left = GOLDEN * low + (1 - GOLDEN) * high
    right = (1 - GOLDEN) * low + GOLDEN * high
    side = torch.zeros(n_rows, dtype=torch.int64, device=device)
    left_cost = costs.at(left, side)
    side = side + 1
    latest = right
    right_cost = costs.at(right, side)
    for _ in range(MAX_STEPS):
        active = high - low > BRACKET * (left + right)
        if not costs.needs_all and not active.any():
            break
        gain = right_cost - left_cost
        go_left = gain > COST_ROUNDING * torch.maximum(left_cost.abs(), right_cost.abs())
        to_left, to_right = active & go_left, active & ~go_left
        high = torch.where(to_left, right, high)
        low = torch.where(to_right, left, low)
        next_left = GOLDEN * low + (1 - GOLDEN) * high
        next_right = (1 - GOLDEN) * low + GOLDEN * high
        latest = torch.where(to_left, next_left, torch.where(to_right, next_right, latest))
        side = torch.where(active, (~go_left).long(), side)
        cost = costs.at(latest, side, active)
        left, right = (
            torch.where(to_left, latest, torch.where(to_right, right, left)),
            torch.where(to_right, latest, torch.where(to_left, left, right)),
        )
        left_cost, right_cost = (
            torch.where(to_left, cost, torch.where(to_right, right_cost, left_cost)),
            torch.where(to_right, cost, torch.where(to_left, left_cost, right_cost)),
        )
    return costs.inverse_bandwidth()
