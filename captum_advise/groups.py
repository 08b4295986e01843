"""Groups of units with the same relevance score: their maps, their scores, and the choice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise.explanation import Candidate, Explanation
from captum_advise.forward_pass import LayerPass
from captum_advise.map_scoring import MapScorer
from captum_advise.metrics import VisualExplainability

# Differences in merit (AVX, average drop) that say nothing: rounding in single precision.
_TIE = 1e-5

Selection: TypeAlias = (
    Literal["explainability", "confidence", "faithfulness"] | frozenset[int] | None
)
# Selections that measure candidates, and those of them that need pictures to do so.
MEASURED = ("explainability", "confidence", "faithfulness")
ON_PICTURES = ("explainability", "faithfulness")


def checked_selection(selection: object) -> Selection:
    """The selection in canonical form; ValueError for what is none."""
    if selection is None or (isinstance(selection, str) and selection in MEASURED):
        return cast(Selection, selection)
    if isinstance(selection, Tensor):
        selection = selection.tolist()
    scores = [selection] if isinstance(selection, int) else selection
    if (
        isinstance(scores, Collection)
        and not isinstance(scores, str)
        and scores
        and all(isinstance(score, int) and not isinstance(score, bool) for score in scores)
        and all(score >= 0 for score in scores)
    ):
        return frozenset(scores)
    raise ValueError(
        'unit_selection must be "explainability", "confidence", "faithfulness", a relevance score '
        f"(an int from 0 up), a non-empty collection of them, or None, got {selection!r}."
    )


def unit_contributions(run: LayerPass, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each unit's map weighted by its mean gradient, alpha_u A_u; summed over units: Grad-CAM."""
    return tuple(
        (
            gradient.mean(tuple(range(2, gradient.dim())), keepdim=True)
            if gradient.dim() > 2
            else gradient
        )
        * feature_map
        for gradient, feature_map in zip(gradients, run.feature_maps, strict=True)
    )


def summarised(contributions: Tensor, units: Tensor | None, summed: bool, relu: bool) -> Tensor:
    """Attributions from the contributions of the kept units (N, C), or of all."""
    if contributions.dim() < 2:
        raise ValueError(
            "The layer must be (N, C, *spatial), and one of its tensors has shape "
            f"{tuple(contributions.shape)}: name another layer, or give reshape_transform."
        )
    if units is not None:
        contributions = _kept(contributions.detach(), units)
    attributions = contributions.sum(1, keepdim=True) if summed else contributions
    return F.relu(attributions) if relu else attributions


def _kept(contributions: Tensor, units: Tensor) -> Tensor:
    mask = units.view(*units.shape, *(1,) * (contributions.dim() - 2))
    return torch.where(mask, contributions, contributions.new_zeros(()))


def having_scores(relevance: Tensor, scores: Collection[int]) -> Tensor:
    """Bool like ``relevance``: the units whose relevance score is among ``scores``."""
    return torch.isin(relevance, relevance.new_tensor(sorted(scores)))


@dataclass(frozen=True)
class UnitSets:
    """Candidates of all examples, S sets of units that each may or may not apply to an example.

    ``relevance`` (S,) has -1 for a set that spans scores; ``units`` (S, N, C) and
    ``eligible`` (S, N) are bool; ``pairs`` (P, 2) int64 lists the (set, example) that are.
    """

    relevance: list[int]
    units: Tensor
    eligible: Tensor
    pairs: Tensor
    fallback: Tensor


def unit_sets(relevance: Tensor, contributions: Tensor, selection: Selection) -> UnitSets:
    """The candidates under a selection: sets whose map holds evidence, or what was asked for."""
    every = torch.ones_like(relevance, dtype=torch.bool)
    everywhere = every.new_ones(1, len(relevance))
    if selection is None:
        scores, units, eligible = [-1], every[None], everywhere
    elif isinstance(selection, frozenset):
        scores = list(selection) if len(selection) == 1 else [-1]
        units, eligible = having_scores(relevance, selection)[None], everywhere
    else:
        scores = torch.unique(relevance).tolist()
        sets = [relevance == score for score in scores]
        if selection == "faithfulness":
            sets += [relevance <= score for score in scores[:-1]]
            sets += [relevance >= score for score in scores[1:]]
            sets += [relevance != score for score in scores]
        scores += [-1] * (len(sets) - len(scores))
        units = torch.stack(sets) if sets else every[:0, None]
        has_evidence = [
            (summarised(contributions, group, True, True) > 0).flatten(1).any(1) for group in units
        ]
        eligible = torch.stack(has_evidence) if sets else everywhere[:0]
        eligible &= ~_repeated(units)
    fallback = ~eligible.any(0)
    # Of faithfulness, all units are the measure.
    whole = ~_all_units(units, eligible).any(0) if selection == "faithfulness" else fallback
    if whole.any():
        scores = [*scores, -1]
        units = torch.cat([units, every[None]])
        eligible = torch.cat([eligible, whole[None]])
    return UnitSets(scores, units, eligible, eligible.nonzero(), fallback)


def _repeated(units: Tensor) -> Tensor:
    """Bool (S, N): which sets of units (S, N, C) are equal to an earlier one."""
    repeated = units.new_zeros(units.shape[:2])
    for place in range(1, len(units)):
        repeated[place] = (units[:place] == units[place]).all(2).any(0)
    return repeated


def _all_units(units: Tensor, eligible: Tensor) -> Tensor:
    """Bool (S, N): which of the eligible sets hold every unit."""
    return eligible & units.all(2)


def score_sets(
    scorer: MapScorer,
    sets: UnitSets,
    contributions: Tensor,
    runner_up_contributions: Tensor | None,
) -> VisualExplainability:
    """Protocol results, one entry per pair of ``sets``."""
    runner_up = None if runner_up_contributions is None else _maps(sets, runner_up_contributions)
    return scorer(sets.pairs[:, 1], _maps(sets, contributions), runner_up)


def _maps(sets: UnitSets, contributions: Tensor) -> Tensor:
    """Maps (P, 1, *spatial), one per pair of ``sets``."""
    return torch.cat(
        [
            summarised(contributions, units, True, False)[eligible]
            for units, eligible in zip(sets.units, sets.eligible, strict=True)
        ]
    )


def merits(
    scorer: MapScorer,
    sets: UnitSets,
    contributions: Tensor,
    scores: VisualExplainability,
    selection: Selection,
) -> Tensor | None:
    """What a selection goes by, (P,) one per pair of ``sets``, larger is better; or None."""
    if selection == "explainability":
        return scores.avx
    if selection == "confidence":
        return -scores.average_drop
    if selection == "faithfulness":
        return _gains_over_all_units(scorer, sets, contributions, scores.avx)
    return None


def _gains_over_all_units(
    scorer: MapScorer, sets: UnitSets, contributions: Tensor, avx: Tensor
) -> Tensor:
    """Gains in AVX, insertion and deletion together; minus infinity where any of them is a loss."""
    which, examples = sets.pairs.T
    of_all = _all_units(sets.units, sets.eligible)[which, examples]

    def gains(values: Tensor, some: Tensor) -> Tensor:
        reference = values.new_zeros(sets.eligible.shape[1])
        reference[examples[some & of_all]] = values[of_all[some]]
        return values - reference[examples[some]]

    merit = gains(avx, torch.ones_like(of_all))
    # What loses in AVX needs no more passes through the network.
    left = merit >= -_TIE
    insertion, deletion = scorer.areas(examples[left], _maps(sets, contributions)[left])
    others = torch.stack([gains(insertion, left), -gains(deletion, left)])
    merit[~left] = -torch.inf
    merit[left] = (merit[left] + others.sum(0)).masked_fill((others < -_TIE).any(0), -torch.inf)
    return merit


def choose_sets(sets: UnitSets, merit: Tensor | None) -> Tensor:
    """The set (N,) that each example keeps."""
    if merit is None:
        return sets.eligible.int().argmax(0)
    table = merit.new_full(sets.eligible.shape, -torch.inf)
    table[sets.eligible] = merit.nan_to_num(nan=-1e9)
    # Groups with evidence at one and the same position have equal masks: a real tie, which
    # rounding would decide otherwise from batch to batch.
    return (table >= table.amax(0) - _TIE).int().argmax(0)


@dataclass(frozen=True)
class Choice:
    """What was compared and what was kept: ``best`` (N,) is a place in ``sets``."""

    contributions: Tensor
    sets: UnitSets
    scores: VisualExplainability | None
    best: Tensor
    relevance: Tensor
    target: Tensor | None
    confidence: Tensor | None

    @property
    def units(self) -> Tensor:
        """Bool (N, C), the units that each example keeps."""
        return self.sets.units[self.best, torch.arange(len(self.best), device=self.best.device)]

    def explanation(self, attributions: Tensor) -> Explanation:
        """The choice, example by example, with the attributions that it led to."""
        candidates: list[list[Candidate]] = [[] for _ in self.best]
        kept = [0] * len(self.best)
        best = self.best.tolist()
        evidence = self.contributions.detach()
        maps = [summarised(evidence, units, True, False) for units in self.sets.units]
        for pair, (which, example) in enumerate(self.sets.pairs.tolist()):
            score = self.sets.relevance[which]
            candidates[example].append(
                Candidate(
                    relevance=None if score < 0 else score,
                    units=self.sets.units[which, example].nonzero().squeeze(1),
                    scores=None if self.scores is None else self.scores[pair],
                    attributions=maps[which][example],
                )
            )
            if which == best[example]:
                kept[example] = pair
        return Explanation(
            attributions=attributions,
            target=self.target,
            confidence=self.confidence,
            unit_relevance=self.relevance,
            selected=self.relevance.new_tensor(self.sets.relevance)[self.best],
            selected_units=self.units,
            fallback=self.sets.fallback,
            scores=None
            if self.scores is None
            else self.scores[torch.tensor(kept, device=self.best.device, dtype=torch.int64)],
            candidates=tuple(tuple(found) for found in candidates),
        )
