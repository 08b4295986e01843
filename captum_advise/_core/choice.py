"""The outcome of one call: which units count, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from captum._utils.common import _format_output
from torch import Tensor

from captum_advise._core.candidates import SEVERAL, Candidates
from captum_advise._core.grad_cam import combine_units
from captum_advise.explanation import Candidate, Explanation
from captum_advise.metrics import VisualExplainability


@dataclass(frozen=True)
class Weighting:
    r"""Units of every tensor of the layer, weighted without a comparison.

    Attributes:
        contributions: Per tensor, (N, C, \*spatial), with their graph.
        weights: Per tensor, (N, C), or None for all units as they are.
        suspicions: What to warn of.
    """

    contributions: tuple[Tensor, ...]
    weights: tuple[Tensor | None, ...]
    suspicions: tuple[str, ...]

    def attributions(self, summed: bool, relu: bool) -> Tensor | tuple[Tensor, ...]:
        """What ``attribute`` returns."""
        attributions = tuple(
            combine_units(contributions, weights, summed=summed, relu=relu)
            for contributions, weights in zip(self.contributions, self.weights, strict=True)
        )
        return cast(
            "Tensor | tuple[Tensor, ...]", _format_output(len(attributions) > 1, attributions)
        )


@dataclass(frozen=True)
class Choice:
    r"""What was compared, and what was selected.

    Attributes:
        contributions: (N, C, \*spatial), with their graph.
        candidates: Of all examples.
        selected: int64 (N,) the candidate that each example selects.
        metrics: One entry per pair of ``candidates``; None if there was no scorer.
        relevance: int64 (N, C); None if the selection does not use it.
        target: int64 (N,) or (N, D), as in :class:`captum_advise.Explanation`.
        confidence: (N,) in the target.
        suspicions: What to warn of.
    """

    contributions: Tensor
    candidates: Candidates
    selected: Tensor
    metrics: VisualExplainability | None
    relevance: Tensor | None
    target: Tensor | None
    confidence: Tensor | None
    suspicions: tuple[str, ...]

    @property
    def weights(self) -> Tensor:
        """(N, C), how much each unit counts in the selected map of its example."""
        examples = torch.arange(len(self.selected), device=self.selected.device)
        return self.candidates.weights[self.selected, examples]

    def attributions(self, summed: bool, relu: bool) -> Tensor:
        """What ``attribute`` returns."""
        return combine_units(self.contributions, self.weights, summed=summed, relu=relu)

    def explanation(self, summed: bool, relu: bool) -> Explanation:
        """What ``explain`` returns."""
        candidates = self.candidates
        metrics = None
        if self.metrics is not None:
            # Pairs are ordered by candidate, then by example.
            is_selected = self.selected[candidates.examples] == candidates.pairs[:, 0]
            in_order = candidates.examples[is_selected].argsort()
            metrics = self.metrics[is_selected.nonzero().squeeze(1)[in_order]]
        return Explanation(
            attributions=self.attributions(summed, relu).detach(),
            target=self.target,
            confidence=self.confidence,
            unit_relevance=self.relevance,
            selected=self.selected.new_tensor(candidates.relevance)[self.selected],
            unit_weights=self.weights,
            fallback=candidates.fallback,
            metrics=metrics,
            candidates=self._candidates_of_examples(),
        )

    def _candidates_of_examples(self) -> tuple[tuple[Candidate, ...], ...]:
        of_example: list[list[Candidate]] = [[] for _ in self.selected]
        for pair, (which, example) in enumerate(self.candidates.pairs.tolist()):
            relevance = self.candidates.relevance[which]
            weights = self.candidates.weights[which, example]
            units = weights.nonzero().squeeze(1)
            of_example[example].append(
                Candidate(
                    relevance=None if relevance == SEVERAL else relevance,
                    units=units,
                    weights=weights[units],
                    metrics=None if self.metrics is None else self.metrics[pair],
                    attributions=self.candidates.maps[which, example],
                )
            )
        return tuple(map(tuple, of_example))
