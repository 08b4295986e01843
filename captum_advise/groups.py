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
# Fitted weights are tried as they are, and part of the way to them from all ones, Grad-CAM.
_PARTS_OF_THE_WAY = (1.0, 0.5, 0.25)

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


def mean_gradients(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each unit's mean gradient, alpha_u in Grad-CAM, (N, C, 1, ...)."""
    return tuple(
        gradient.mean(tuple(range(2, gradient.dim())), keepdim=True)
        if gradient.dim() > 2
        else gradient
        for gradient in gradients
    )


def unit_contributions(run: LayerPass, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each unit's map weighted by its mean gradient, alpha_u A_u; summed over units: Grad-CAM."""
    return tuple(
        weight * feature_map
        for weight, feature_map in zip(mean_gradients(gradients), run.feature_maps, strict=True)
    )


def summarised(contributions: Tensor, weights: Tensor | None, summed: bool, relu: bool) -> Tensor:
    """Attributions from the contributions of units, weighted (N, C), or as they are."""
    if contributions.dim() < 2:
        raise ValueError(
            "The layer must be (N, C, *spatial), and one of its tensors has shape "
            f"{tuple(contributions.shape)}: name another layer, or give reshape_transform."
        )
    if weights is not None:
        contributions = _weighted(contributions.detach(), weights)
    attributions = contributions.sum(1, keepdim=True) if summed else contributions
    return F.relu(attributions) if relu else attributions


def _weighted(contributions: Tensor, weights: Tensor) -> Tensor:
    weights = weights.view(*weights.shape, *(1,) * (contributions.dim() - 2))
    # What is not finite in a unit that is left out is left out, too.
    kept = contributions * weights.to(contributions.dtype)
    return torch.where(weights > 0, kept, contributions.new_zeros(()))


def having_scores(relevance: Tensor, scores: Collection[int]) -> Tensor:
    """Bool like ``relevance``: the units whose relevance score is among ``scores``."""
    return torch.isin(relevance, relevance.new_tensor(sorted(scores)))


@dataclass(frozen=True)
class UnitSets:
    """Candidates of all examples, S sets of units that each may or may not apply to an example.

    ``relevance`` (S,) has -1 for a set that spans scores; ``weights`` (S, N, C) says how much a
    unit counts, from zero up; ``eligible`` (S, N) is bool; ``pairs`` (P, 2) int64 lists the
    (set, example) that are.
    """

    relevance: list[int]
    weights: Tensor
    eligible: Tensor
    pairs: Tensor
    fallback: Tensor


def unit_sets(
    relevance: Tensor, contributions: Tensor, selection: Selection, fitted: Tensor | None
) -> UnitSets:
    """The candidates under a selection: sets whose map holds evidence, or what was asked for.

    Where there are ``fitted`` weights (F, N, C), the candidates are all units, and they.
    """
    every = torch.ones_like(relevance, dtype=torch.float32)[None]
    everywhere = torch.ones_like(relevance[:, 0], dtype=torch.bool)[None]
    fallback = ~everywhere[0]
    if selection is None:
        scores, weights, eligible = [-1], every, everywhere
    elif isinstance(selection, frozenset):
        scores = list(selection) if len(selection) == 1 else [-1]
        weights, eligible = having_scores(relevance, selection)[None].to(every), everywhere
    elif fitted is not None:
        weights = torch.cat([every, *(1 - part + part * fitted for part in _PARTS_OF_THE_WAY)])
        scores = [-1] * len(weights)
        eligible = _have_evidence(weights, contributions)
        fallback = ~eligible.any(0)
        # Of gains and losses, all units are the measure.
        eligible[0] = True
    else:
        scores = torch.unique(relevance).tolist()
        weights = torch.cat([every[:0], *((relevance == score)[None] for score in scores)])
        eligible = _have_evidence(weights, contributions)
        fallback = ~eligible.any(0)
        if fallback.any():
            scores = [*scores, -1]
            weights = torch.cat([weights, every])
            eligible = torch.cat([eligible, fallback[None]])
    return UnitSets(scores, weights, eligible, eligible.nonzero(), fallback)


def _have_evidence(weights: Tensor, contributions: Tensor) -> Tensor:
    """Bool (S, N): which weightings (S, N, C) are no repetition and have a map above zero."""
    found = weights.new_zeros(weights.shape[:2], dtype=torch.bool)
    for place, units in enumerate(weights):
        is_new = (weights[:place] != units).any(2).all(0)
        has_map = (summarised(contributions, units, True, True) > 0).flatten(1).any(1)
        found[place] = is_new & has_map
    return found


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
            summarised(contributions, weights, True, False)[eligible]
            for weights, eligible in zip(sets.weights, sets.eligible, strict=True)
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
    """Gains in insertion and deletion; minus infinity where these or AVX are less than with all.

    All units are the first set.
    """
    which, examples = sets.pairs.T
    maps = _maps(sets, contributions)

    def gains(values: Tensor, left: Tensor) -> Tensor:
        of_all = values.new_zeros(sets.eligible.shape[1])
        is_all = which[left] == 0
        of_all[examples[left][is_all]] = values[is_all]
        return values - of_all[examples[left]]

    merit = torch.full_like(avx, -torch.inf)
    total = torch.zeros_like(avx)
    left = torch.arange(len(avx), device=avx.device)
    left = left[gains(avx, left) >= -_TIE]
    # What loses once needs no more passes through the network.
    for area, sign in ((scorer.insertion, 1), (scorer.deletion, -1)):
        gain = sign * gains(area(examples[left], maps[left]), left)
        total[left] += gain
        left = left[gain >= -_TIE]
    merit[left] = total[left]
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
    def weights(self) -> Tensor:
        """(N, C), how much each unit counts in the map that its example keeps."""
        return self.sets.weights[self.best, torch.arange(len(self.best), device=self.best.device)]

    def explanation(self, attributions: Tensor) -> Explanation:
        """The choice, example by example, with the attributions that it led to."""
        candidates: list[list[Candidate]] = [[] for _ in self.best]
        kept = [0] * len(self.best)
        best = self.best.tolist()
        evidence = self.contributions.detach()
        maps = [summarised(evidence, weights, True, False) for weights in self.sets.weights]
        for pair, (which, example) in enumerate(self.sets.pairs.tolist()):
            score, weights = self.sets.relevance[which], self.sets.weights[which, example]
            units = weights.nonzero().squeeze(1)
            candidates[example].append(
                Candidate(
                    relevance=None if score < 0 else score,
                    units=units,
                    weights=weights[units],
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
            unit_weights=self.weights,
            fallback=self.sets.fallback,
            scores=None
            if self.scores is None
            else self.scores[torch.tensor(kept, device=self.best.device, dtype=torch.int64)],
            candidates=tuple(tuple(found) for found in candidates),
        )
