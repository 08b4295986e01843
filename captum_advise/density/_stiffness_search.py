"""The search for the stiffness of least cost, in all rows at once.

Step 7 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3): a
golden-section search for the stiffness that ties windows to bandwidths.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

GOLDEN = (math.sqrt(5) - 1) / 2
LOW = 1e-12
MAX_STEPS = 29
BRACKET = 1e-5
# Costs can be exactly flat; rounding must not decide which way the search goes there.
COST_ROUNDING = 1e-12


def search_stiffness(cost_at: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The stiffness (B,) that each row's search tries last.

    Rows whose search has ended are computed on: to leave them out, a GPU would have to be asked
    which they are.

    Args:
        cost_at: From a stiffness (B,) of each row to its cost (B,).
        like: (B, ...), of the type and on the device of the result.
    """
    low, high = like.new_full((len(like),), LOW), like.new_ones(len(like))
    left, right = _between(low, high)
    left_cost, right_cost = cost_at(left), cost_at(right)
    latest = right
    for _ in range(MAX_STEPS):
        active = high - low > BRACKET * (left + right)
        gain = right_cost - left_cost
        is_left = gain > COST_ROUNDING * torch.maximum(left_cost.abs(), right_cost.abs())
        to_left, to_right = active & is_left, active & ~is_left
        high, low = torch.where(to_left, right, high), torch.where(to_right, left, low)
        next_left, next_right = _between(low, high)
        latest = torch.where(to_left, next_left, torch.where(to_right, next_right, latest))
        cost = cost_at(latest)
        # The point that stays inside the bracket becomes the other one of the two.
        left, right = (
            torch.where(to_left, latest, torch.where(to_right, right, left)),
            torch.where(to_right, latest, torch.where(to_left, left, right)),
        )
        left_cost, right_cost = (
            torch.where(to_left, cost, torch.where(to_right, right_cost, left_cost)),
            torch.where(to_right, cost, torch.where(to_left, left_cost, right_cost)),
        )
    return latest


def _between(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return GOLDEN * low + (1 - GOLDEN) * high, (1 - GOLDEN) * low + GOLDEN * high
