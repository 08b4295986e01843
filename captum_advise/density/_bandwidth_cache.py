"""Costs of a search on a CPU: only of active rows, with bandwidths that are already known.

Between two levels of the stiffness the choice of windows does not change, and the smoothed
bandwidth is proportional to the stiffness. The search moves to and fro between two choices, so each
row has two slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_advise.density._balloon import BalloonEstimator
from captum_advise.density._windows import Smoother


class CachedCosts:
    """Costs at smoothed bandwidths; see :class:`captum_advise.density._stiffness_search.Costs`."""

    needs_all = False

    def __init__(self, smoother: Smoother, estimator: BalloonEstimator) -> None:
        self._cache = BandwidthCache(smoother)
        self._estimator = estimator
        self._key: CacheKey

    def at(self, stiffness: Tensor, side: Tensor, active: Tensor | None = None) -> Tensor:
        """As the protocol says."""
        self._key = self._cache.key(stiffness, side)
        rows = self._cache.rows if active is None else active.nonzero().squeeze(1)
        inverse = self._cache.inverse_bandwidth(self._key, rows)
        cost = torch.empty_like(stiffness)
        cost[rows] = self._estimator.cost(inverse, rows)
        return cost

    def inverse_bandwidth(self) -> Tensor:
        """As the protocol says."""
        return self._cache.inverse_bandwidth(self._key, self._cache.rows)


@dataclass(frozen=True)
class CacheKey:
    """Where all rows are in their searches.

    Attributes:
        stiffness: (B,).
        level: (B,) its level.
        choice: (B,) the choice of windows made there.
        slot: (B,) the slot of the cache for that choice.
        is_cached: bool (B,), whether the slot holds that choice already.
    """

    stiffness: Tensor
    level: Tensor
    choice: Tensor
    slot: Tensor
    is_cached: Tensor


class BandwidthCache:
    """Two slots per row, each with the smoothed bandwidth of one choice."""

    def __init__(self, smoother: Smoother) -> None:
        n_rows, length = smoother.inside.shape
        self.smoother = smoother
        self.rows = torch.arange(n_rows, device=smoother.inside.device)
        self._choice = torch.full((2, n_rows), -1, device=self.rows.device)
        self._inverse = smoother.widest.new_zeros(2, n_rows, length)
        self._proportional = torch.zeros(2, n_rows, dtype=torch.bool, device=self.rows.device)
        self._repeats = torch.zeros_like(self._proportional)

    def key(self, stiffness: Tensor, side: Tensor) -> CacheKey:
        """The choice of each row at its stiffness; a new choice goes into the slot ``side``."""
        choices = self.smoother.choices
        level = choices.level(stiffness)
        choice = choices.of_level.gather(1, level[:, None]).squeeze(1)
        matches = self._choice == choice
        slot = torch.where(matches[0], 0, torch.where(matches[1], 1, side))
        return CacheKey(stiffness, level, choice, slot, matches.any(0))

    def inverse_bandwidth(self, key: CacheKey, rows: Tensor) -> Tensor:
        """One over the smoothed bandwidth of some rows, (R, L)."""
        slot = key.slot[rows]
        is_cached = key.is_cached[rows]
        stale = ~(is_cached & self._repeats[slot, rows])
        if stale.any():
            new_rows, new_slot = rows[stale], slot[stale]
            smoothed = self.smoother(new_rows, key.level[new_rows], key.stiffness[new_rows])
            self._inverse[new_slot, new_rows] = smoothed.inverse
            self._proportional[new_slot, new_rows] = smoothed.proportional
            self._repeats[new_slot, new_rows] = smoothed.repeats
            self._choice[new_slot, new_rows] = key.choice[new_rows]
        factor = torch.where(self._proportional[slot, rows], key.stiffness[rows], 1.0)
        return self._inverse[slot, rows].div_(factor[:, None])
