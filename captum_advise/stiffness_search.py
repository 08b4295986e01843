"""The search for the stiffness of least cost, on histograms.

Step 7 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3): a
golden-section search for the stiffness that ties windows to bandwidths, in all rows at once.

Positions and bandwidths are counted in *cells*: the step of the working grid is one. Densities
and costs in cells differ from the true ones by a constant factor per row, which the search does
not see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_advise.balloon import BalloonEstimator, Choices, Smoother
from captum_advise.local_costs import favoured_bandwidths

_GOLDEN = (math.sqrt(5) - 1) / 2
_MAX_STEPS = 29
_BRACKET = 1e-5
# Costs can be exactly flat; rounding must not decide which way the search goes there.
_COST_ROUNDING = 1e-12
# At this tolerance and above, no cost is evaluated whose rounding in single precision, some 1e-7,
# could matter: costs differ by about the square of the bracket's width.
_SINGLE_PRECISION_FROM = 0.05
# Points through which a predicted cost goes: a parabola's.
_MODEL_POINTS = 3


@dataclass(frozen=True)
class Block:
    """Rows that are estimated together, padded to the longest working grid among them.

    ``index`` (B,) is each row's place in the input, ``lengths`` (B,) the points of its working
    grid and ``counts`` (B, L) its histogram.
    ``segment`` (B,) tells to which run of rows of one length a row belongs, ``segments`` lists
    (length, rows) of the runs, ``windows`` (S, M) the bandwidths tried there, in cells.
    """

    index: Tensor
    lengths: Tensor
    counts: Tensor
    segment: Tensor
    segments: tuple[tuple[int, int], ...]
    windows: Tensor


def estimate_block(block: Block, tolerance: float) -> tuple[Tensor, Tensor]:
    """Density (per span of the grid) and bandwidth (likewise) on the working grids, (B, L).

    Under a tolerance the search's costs are single precision; what it ends at never is.
    """
    fast = tolerance >= _SINGLE_PRECISION_FROM
    precision = torch.float32 if fast else torch.float64
    favoured = favoured_bandwidths(block.counts, block.segments, block.windows, thinned=fast)
    smoother = Smoother(
        Choices.of(favoured, block.windows, block.segment),
        block.windows,
        block.segment,
        block.lengths,
        block.counts.shape[1],
    )
    estimator = BalloonEstimator(block.counts, precision)
    inverse = _StiffnessSearch(smoother, estimator).run(tolerance)
    if fast:
        estimator = BalloonEstimator(block.counts, torch.float64)
    density = estimator.density(inverse)
    cells = (block.lengths - 1)[:, None]
    return density / density.sum(-1, keepdim=True) * cells, 1 / (inverse * cells)


@dataclass(frozen=True)
class _Place:
    """Where all rows are in their searches.

    ``stiffness`` (B,), its ``level`` and the ``choice`` made there, the ``slot`` of the memory for
    it, and whether that memory is for this choice already (``known``).
    """

    stiffness: Tensor
    level: Tensor
    choice: Tensor
    slot: Tensor
    known: Tensor


class _StiffnessSearch:
    """Golden-section search for each row's stiffness.

    Between two levels of the stiffness the choice of windows does not change, and the smoothed
    bandwidth is proportional to the stiffness.
    """

    def __init__(self, smoother: Smoother, estimator: BalloonEstimator) -> None:
        n_rows, length = smoother.inside.shape
        self.smoother = smoother
        self.estimator = estimator
        self.rows = torch.arange(n_rows, device=smoother.inside.device)
        # The search moves to and fro between two choices: one memory for each side.
        self.choice = torch.full((2, n_rows), -1, device=self.rows.device)
        self.inverse = smoother.widest.new_zeros(2, n_rows, length)
        self.proportional = torch.zeros(2, n_rows, dtype=torch.bool, device=self.rows.device)
        self.repeats = torch.zeros_like(self.proportional)
        # The last evaluations under that choice, (stiffness, cost), the latest first.
        self.points = self.inverse.new_zeros(2, n_rows, _MODEL_POINTS, 2)
        self.n_points = torch.zeros_like(self.choice)

    def run(self, tolerance: float) -> Tensor:
        """Inverse bandwidth (B, L) where the search ends."""
        low = torch.full_like(self.smoother.widest, 1e-12)
        high = torch.ones_like(low)
        left = _GOLDEN * low + (1 - _GOLDEN) * high
        right = (1 - _GOLDEN) * low + _GOLDEN * high
        side = torch.zeros_like(self.rows)
        left_cost = self.cost(self.place(left, side), self.rows)
        side = side + 1
        place = self.place(right, side)
        right_cost = self.cost(place, self.rows)
        for _ in range(_MAX_STEPS):
            width = (high - low) / (left + right)
            active = width > _BRACKET
            if not active.any():
                break
            gain = right_cost - left_cost
            go_left = gain > _COST_ROUNDING * torch.maximum(left_cost.abs(), right_cost.abs())
            to_left, to_right = active & go_left, active & ~go_left
            high = torch.where(to_left, right, high)
            low = torch.where(to_right, left, low)
            next_left = _GOLDEN * low + (1 - _GOLDEN) * high
            next_right = (1 - _GOLDEN) * low + _GOLDEN * high
            latest = torch.where(
                to_left, next_left, torch.where(to_right, next_right, place.stiffness)
            )
            side = torch.where(active, (~go_left).long(), side)

            place = self.place(latest, side)
            cost, is_predicted = self.predicted_cost(place)
            rows = (active & ~(is_predicted & (width < tolerance))).nonzero().squeeze(1)
            if len(rows):
                cost[rows] = self.cost(place, rows)
            left, right = (
                torch.where(to_left, latest, torch.where(to_right, right, left)),
                torch.where(to_right, latest, torch.where(to_left, left, right)),
            )
            left_cost, right_cost = (
                torch.where(to_left, cost, torch.where(to_right, right_cost, left_cost)),
                torch.where(to_right, cost, torch.where(to_left, left_cost, right_cost)),
            )
        return self.inverse_bandwidth(place, self.rows)

    def place(self, stiffness: Tensor, side: Tensor) -> _Place:
        """Which choice each row makes at its stiffness, and which memory is for it."""
        choices = self.smoother.choices
        level = choices.level(stiffness)
        choice = choices.of_level.gather(1, level[:, None]).squeeze(1)
        known = self.choice == choice
        slot = torch.where(known[0], 0, torch.where(known[1], 1, side))
        return _Place(stiffness, level, choice, slot, known.any(0))

    def predicted_cost(self, place: _Place) -> tuple[Tensor, Tensor]:
        """Cost (B,) by the parabola through the last evaluations, and where there is one (B,)."""
        (x0, c0), (x1, c1), (x2, c2) = self.points[place.slot, self.rows].permute(1, 2, 0)
        slope = (c1 - c0) / (x1 - x0)
        bend = ((c2 - c1) / (x2 - x1) - slope) / (x2 - x0)
        cost = c0 + (place.stiffness - x0) * (slope + (place.stiffness - x1) * bend)
        enough = self.n_points[place.slot, self.rows] >= _MODEL_POINTS
        return cost, place.known & enough

    def cost(self, place: _Place, rows: Tensor) -> Tensor:
        """Cost (R,) of some rows, remembered."""
        cost = self.estimator.cost(self.inverse_bandwidth(place, rows), rows).double()
        slot = place.slot[rows]
        latest = torch.stack([place.stiffness[rows], cost], 1)[:, None]
        self.points[slot, rows] = torch.cat([latest, self.points[slot, rows, :-1]], 1)
        self.n_points[slot, rows] += 1
        return cost

    def inverse_bandwidth(self, place: _Place, rows: Tensor) -> Tensor:
        """One over the smoothed bandwidth of some rows, (R, L)."""
        slot = place.slot[rows]
        is_known = place.known[rows]
        stale = ~(is_known & self.repeats[slot, rows])
        if stale.any():
            new, at = rows[stale], slot[stale]
            found = self.smoother(new, place.level[new], place.stiffness[new])
            self.inverse[at, new] = found.inverse
            self.proportional[at, new] = found.proportional
            self.repeats[at, new] = found.repeats
            self.choice[at, new] = place.choice[new]
            self.n_points[at, new] *= is_known[stale]
        factor = torch.where(self.proportional[slot, rows], place.stiffness[rows], 1.0)
        return self.inverse[slot, rows].div_(factor[:, None])
