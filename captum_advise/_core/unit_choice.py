"""Which units make the map: the values of ``unit_selection``, and the groups that are compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_advise._core.grad_cam import are_finite, check_finite, combine_units
from captum_advise._utils.probabilities import are_probabilities, check_probabilities

UnitSelection: TypeAlias = Literal["avx", "average_drop"] | int | Collection[int] | None

# The same in canonical form: the criterion by which groups are compared, relevances, or None.
Selection: TypeAlias = Literal["avx", "average_drop"] | frozenset[int] | None


def as_selection(unit_selection: object) -> Selection:
    """A value of ``unit_selection`` in canonical form."""
    if unit_selection is None:
        return None
    if unit_selection == "avx":
        return "avx"
    if unit_selection == "average_drop":
        return "average_drop"
    if isinstance(unit_selection, Tensor):
        unit_selection = unit_selection.tolist()
    values = [unit_selection] if isinstance(unit_selection, int) else unit_selection
    if (
        isinstance(values, Collection)
        and not isinstance(values, str)
        and values
        and all(isinstance(value, int) and not isinstance(value, bool) for value in values)
        and all(value >= 0 for value in values)
    ):
        return frozenset(values)
    raise ValueError(
        'unit_selection must be "avx", "average_drop", a relevance (an int from 0 up), a '
        f"non-empty collection of them, or None, got {unit_selection!r}."
    )


# Stands for a candidate whose units have several relevances.
SEVERAL = -1
# Criteria (AVX, average drop) that differ by less differ by rounding in single precision.
TIE = 1e-5


def on_host(*tensors: Tensor) -> list[Tensor]:
    """Copies on the CPU in single precision, by one transfer from a GPU."""
    flat = [tensor.detach().flatten().to(tensors[0].device, torch.float32) for tensor in tensors]
    parts = torch.split(torch.cat(flat).cpu(), [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


@dataclass(frozen=True)
class Candidates:
    """S groups of units for N examples. Each may or may not be eligible for an example."""

    relevance: Sequence[int]  # what the units of each share, or SEVERAL
    units: Tensor  # bool (S, N, C)
    maps: Tensor  # (S, N, 1, *spatial)
    eligible: Tensor  # bool (S, N)
    fallback: Tensor  # bool (N,), whether no group of the example has evidence

    @cached_property
    def pairs(self) -> Tensor:
        """int64 (P, 2), on the CPU: the eligible (candidate, example), by candidate."""
        (known,) = on_host(self.eligible)
        return known.nonzero()

    @cached_property
    def places(self) -> tuple[Tensor, ...]:
        """Candidates and examples of the pairs, (P,) each, where the maps are."""
        return self.pairs.to(self.maps.device).unbind(1)

    @property
    def examples(self) -> Tensor:
        """int64 (P,) the example of each pair."""
        return self.places[1]

    @property
    def pair_maps(self) -> Tensor:
        r"""(P, 1, \*spatial) the map of each pair."""
        return self.maps[self.places]

    def maps_from(self, contributions: Tensor | None) -> Tensor | None:
        r"""(S, N, 1, \*spatial) the maps of the same units for another class; None without one."""
        return None if contributions is None else _maps(self.units, contributions)

    def best(self, criterion: Tensor | None) -> Tensor:
        """int64 (N,) the candidate with the largest criterion (S, N), the first one on ties.

        Without a criterion, the first candidate.
        """
        if criterion is None:
            return torch.zeros_like(self.fallback, dtype=torch.int64)
        # Groups with evidence at a single, common position have equal masks. Without a margin,
        # rounding would decide such ties, and differently from batch to batch.
        return (criterion >= criterion.amax(0) - TIE).int().argmax(0)

    def units_of(self, selected: Tensor) -> Tensor:
        """Bool (N, C), the units of the candidate (N,) that each example selects."""
        return self.units[selected, torch.arange(len(selected), device=selected.device)]

    def selected_pairs(self, selected: Tensor) -> Tensor:
        """int64 (N,) the number of the pair that each example selects."""
        numbers = torch.zeros(self.units.shape[:2], dtype=torch.int64, device=selected.device)
        numbers[self.places] = torch.arange(len(self.pairs), device=selected.device)
        return numbers.gather(0, selected[None])[0]

    def unexplained(self, criterion: Tensor | None, selection: object) -> Tensor:
        """Bool (N,), whether several candidates were compared, and all are as bad as can be."""
        if criterion is None:
            return torch.zeros_like(self.fallback)
        least = 0.0 if selection == "avx" else -1.0
        return (self.eligible.sum(0) > 1) & (criterion.amax(0) <= least + TIE)

    def table(self, of_pairs: Tensor) -> Tensor:
        """Values (P,) of the pairs as (S, N), minus infinity for what is not eligible."""
        table = of_pairs.new_full(self.eligible.shape, -torch.inf)
        table[self.places] = of_pairs.nan_to_num(nan=-1e9)
        return table


def has_relevance(relevance: Tensor, values: Collection[int]) -> Tensor:
    """Bool like ``relevance``: the units whose relevance is among ``values``."""
    return torch.isin(relevance, relevance.new_tensor(sorted(values)))


def candidates_of(
    selection: Selection,
    relevance: Tensor | None,
    contributions: Tensor,
    runner_up_contributions: Tensor | None,
    confidences: Tensor | None,
) -> Candidates:
    r"""The groups of units that are compared, or the units that were asked for.

    Raises:
        ValueError: Contributions (N, C, \*spatial) are not finite, or confidences no probabilities.
    """
    nothing = contributions[:0]
    finite, of_runner_up, probable, known = on_host(
        are_finite(contributions),
        nothing if runner_up_contributions is None else are_finite(runner_up_contributions),
        nothing if confidences is None else are_probabilities(confidences),
        nothing if relevance is None else relevance,
    )
    check_finite(finite)
    check_probabilities(probable)
    check_finite(of_runner_up)
    if relevance is None:
        every = contributions.new_ones(contributions.shape[:2], dtype=torch.bool)
        return _only(SEVERAL, every, contributions)
    if isinstance(selection, frozenset):
        shared = min(selection) if len(selection) == 1 else SEVERAL
        return _only(shared, has_relevance(relevance, selection), contributions)
    return _groups(relevance, torch.unique(known.int()).tolist(), contributions)


def _groups(relevance: Tensor, values: Sequence[int], contributions: Tensor) -> Candidates:
    """One candidate per relevance that occurs, if its map has evidence; else all units."""
    every = torch.ones_like(relevance, dtype=torch.bool)
    units = torch.stack([*(relevance == value for value in values), every])
    maps = _maps(units, contributions)
    eligible = (maps > 0).flatten(2).any(2)
    eligible[-1] = ~eligible[:-1].any(0)
    return Candidates([*values, SEVERAL], units, maps, eligible, eligible[-1])


def _only(shared: int, units: Tensor, contributions: Tensor) -> Candidates:
    """The only candidate is some units (N, C), which have a ``shared`` relevance."""
    maps = _maps(units[None], contributions)
    nobody = units.new_zeros(len(units))
    return Candidates([shared], units[None], maps, ~nobody[None], nobody)


def _maps(units: Tensor, contributions: Tensor) -> Tensor:
    r"""The maps (S, N, 1, \*spatial) of groups of units, bool (S, N, C)."""
    return torch.stack([combine_units(contributions, of_group) for of_group in units])
