"""Groups of units among which a choice is made, with their maps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from captum_advise._core.grad_cam import combine_units

# Stands for a candidate whose units have several relevances.
SEVERAL = -1
# Criteria (AVX, average drop) that differ by less differ by rounding in single precision.
TIE = 1e-5


@dataclass(frozen=True)
class Candidates:
    r"""S groups of units for N examples. Each may or may not be eligible for an example.

    Attributes:
        relevance: (S,) the relevance that the units share, or :data:`SEVERAL`.
        units: bool (S, N, C), those of the group.
        maps: (S, N, 1, \*spatial) their maps.
        eligible: bool (S, N).
        fallback: bool (N,), whether no group of the example has evidence.
    """

    relevance: list[int]
    units: Tensor
    maps: Tensor
    eligible: Tensor
    fallback: Tensor

    @cached_property
    def pairs(self) -> Tensor:
        """int64 (P, 2) the eligible (candidate, example), by candidate, then by example."""
        return self.eligible.nonzero()

    @property
    def examples(self) -> Tensor:
        """int64 (P,) the example of each pair."""
        return self.pairs[:, 1]

    @property
    def _places(self) -> tuple[Tensor, ...]:
        """Candidates and examples of the pairs: unlike a mask, they need no answer of a GPU."""
        return self.pairs.unbind(1)

    @property
    def pair_maps(self) -> Tensor:
        r"""(P, 1, \*spatial) the map of each pair."""
        return self.maps[self._places]

    def pair_maps_from(self, contributions: Tensor) -> Tensor:
        r"""(P, 1, \*spatial) the maps of the same units for another class."""
        return _maps(self.units, contributions)[self._places]

    def best(self, criterion: Tensor | None) -> Tensor:
        """int64 (N,) the candidate with the largest criterion (P,), the first one on ties.

        Without a criterion, the first eligible candidate.
        """
        if criterion is None:
            return self.eligible.int().argmax(0)
        table = self._table(criterion)
        # Groups with evidence at a single, common position have equal masks. Without a margin,
        # rounding would decide such ties, and differently from batch to batch.
        return (table >= table.amax(0) - TIE).int().argmax(0)

    def unexplained(self, criterion: Tensor | None, least: float) -> Tensor:
        """Bool (N,), whether several candidates were compared, and all have the least criterion."""
        if criterion is None:
            return torch.zeros_like(self.fallback)
        return (self.eligible.sum(0) > 1) & (self._table(criterion).amax(0) <= least + TIE)

    def _table(self, criterion: Tensor) -> Tensor:
        """A criterion (P,) as (S, N), minus infinity for what is not eligible."""
        table = criterion.new_full(self.eligible.shape, -torch.inf)
        table[self._places] = criterion.nan_to_num(nan=-1e9)
        return table


def all_units(contributions: Tensor) -> Candidates:
    """The only candidate is every unit: Grad-CAM."""
    every = contributions.new_ones(1, *contributions.shape[:2], dtype=torch.bool)
    return _unconditional([SEVERAL], every, contributions)


def units_with(values: Collection[int], relevance: Tensor, contributions: Tensor) -> Candidates:
    """The only candidate is the units whose relevance is among ``values``."""
    shared = list(values) if len(values) == 1 else [SEVERAL]
    return _unconditional(shared, has_relevance(relevance, values)[None], contributions)


def has_relevance(relevance: Tensor, values: Collection[int]) -> Tensor:
    """Bool like ``relevance``: the units whose relevance is among ``values``."""
    return torch.isin(relevance, relevance.new_tensor(sorted(values)))


def groups(relevance: Tensor, contributions: Tensor) -> Candidates:
    """One candidate per relevance that occurs, if its map has evidence; else all units."""
    values = torch.unique(relevance).tolist()
    every = torch.ones_like(relevance, dtype=torch.bool)[None]
    units = torch.cat([every[:0], *((relevance == value)[None] for value in values)])
    maps = _maps(units, contributions)
    eligible = (maps > 0).flatten(2).any(2)
    fallback = ~eligible.any(0)
    if fallback.any():
        values = [*values, SEVERAL]
        units = torch.cat([units, every])
        maps = torch.cat([maps, _maps(every, contributions)])
        eligible = torch.cat([eligible, fallback[None]])
    return Candidates(values, units, maps, eligible, fallback)


def _unconditional(relevance: list[int], units: Tensor, contributions: Tensor) -> Candidates:
    eligible = units.new_ones(units.shape[:2])
    maps = _maps(units, contributions)
    return Candidates(relevance, units, maps, eligible, ~eligible[0])


def _maps(units: Tensor, contributions: Tensor) -> Tensor:
    return torch.stack([combine_units(contributions, of_group) for of_group in units])
