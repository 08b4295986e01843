"""What :meth:`LayerAdvise.explain` returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from captum_advise.metrics import VisualExplainability


@dataclass(frozen=True)
class Candidate:
    """A set of units that could explain one picture.

    Attributes:
        relevance: The relevance score that the units share; None for a set that spans several
            scores.
        units: int64 (U,) indices of the units, in order.
        scores: The protocol's result for the map of these units, every part without dimensions;
            None when it was not computed.
    """

    relevance: int | None
    units: Tensor
    scores: VisualExplainability | None


@dataclass(frozen=True)
class Explanation:
    r"""The map of each of N examples, and how it came about. All tensors are detached.

    Attributes:
        attributions: (N, 1, \*spatial), what :meth:`LayerAdvise.attribute` returns.
        target: int64 (N,) class that is explained ((N, D) for outputs with D dimensions beside
            the batch); None for a forward function with a single score per example.
        confidence: (N,) confidence in the target; None when the outputs are no class scores.
        unit_relevance: int64 (N, C), modes per unit.
        selected: int64 (N,) relevance score that was kept, -1 where the kept units span several.
        selected_units: bool (N, C), the kept units.
        fallback: bool (N,), where no group of units had a map with any evidence, so that all
            units were kept instead.
        scores: The protocol's result for the kept map; None when it was not computed.
        candidates: Per example, the sets of units that were compared.
    """

    attributions: Tensor
    target: Tensor | None
    confidence: Tensor | None
    unit_relevance: Tensor
    selected: Tensor
    selected_units: Tensor
    fallback: Tensor
    scores: VisualExplainability | None
    candidates: tuple[tuple[Candidate, ...], ...]

    def __len__(self) -> int:
        return len(self.selected)
