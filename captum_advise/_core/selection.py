"""The kinds of ``unit_selection``: which candidates, which criterion, and what each needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from captum_advise._core import candidates as of
from captum_advise._core.candidates import TIE, Candidates, has_relevance
from captum_advise._core.fitted_weights import fitted_weights, hidden_cells
from captum_advise._core.perturbation import InputLayout
from captum_advise._core.scoring import MapScorer
from captum_advise._core.suspicions import missing_relevance
from captum_advise.metrics import VisualExplainability

UnitSelection: TypeAlias = (
    Literal["explainability", "confidence", "faithfulness"] | int | Collection[int] | None
)

# Steps of insertion and deletion in "faithfulness".
STEPS = 8
# Fitted weights are tried as they are, and part of the way to them from all ones (Grad-CAM).
_PARTS_OF_THE_WAY = (1.0, 0.5, 0.25)


@dataclass(frozen=True)
class Evidence:
    r"""What candidates are made of.

    Attributes:
        relevance: int64 (N, C); None for a selection that does not use it.
        contributions: (N, C, \*spatial), detached.
        mean_gradients: (N, C).
        scorer: Scores maps; None if that is not possible.
    """

    relevance: Tensor | None
    contributions: Tensor
    mean_gradients: Tensor
    scorer: MapScorer | None


class Selection(ABC):
    """One kind of ``unit_selection``.

    Attributes:
        compares: Whether candidates are compared, which needs a scorer.
        uses_relevance: Whether the weights of units depend on their relevance.
        needs_similarity: Whether the criterion compares masked images with the whole ones.
    """

    compares: ClassVar[bool]
    uses_relevance: ClassVar[bool] = True
    needs_similarity: ClassVar[bool] = False

    def check(self, layout: InputLayout) -> None:  # noqa: B027 - most kinds take any inputs
        """Raise ValueError if the inputs do not suit this kind of selection."""

    @abstractmethod
    def candidates(self, evidence: Evidence) -> Candidates:
        """What is compared."""

    def criterion(
        self, candidates: Candidates, metrics: VisualExplainability, scorer: MapScorer
    ) -> Tensor | None:
        """What the choice maximises, (P,) one value per pair; None for the only candidate."""
        del candidates, metrics, scorer
        return None

    def criterion_alone(
        self, candidates: Candidates, scorer: MapScorer, runner_up_maps: Tensor | None
    ) -> Tensor | None:
        """A criterion with the same maxima, if it can be had without all metrics; else None."""
        del candidates, scorer, runner_up_maps
        return None

    def unit_weights(self, relevance: Tensor) -> Tensor | None:
        """Weights (N, C) of units where nothing is compared; None for all units as they are."""
        del relevance
        return None

    def suspicion(self, relevance: Tensor) -> str | None:
        """What a user should know about the units' relevance (N, C)."""
        del relevance
        return None


class AllUnits(Selection):
    """``None``: every unit, as in Grad-CAM."""

    compares = False
    uses_relevance = False

    def candidates(self, evidence: Evidence) -> Candidates:
        """All units."""
        return of.all_units(evidence.contributions)


@dataclass(frozen=True)
class UnitsWithRelevance(Selection):
    """An int or several: the units with these relevances."""

    compares: ClassVar[bool] = False
    values: frozenset[int]

    def candidates(self, evidence: Evidence) -> Candidates:
        """The units with these relevances."""
        assert evidence.relevance is not None
        return of.units_with(self.values, evidence.relevance, evidence.contributions)

    def unit_weights(self, relevance: Tensor) -> Tensor | None:
        """1 for these units, 0 for others."""
        return has_relevance(relevance, self.values)

    def suspicion(self, relevance: Tensor) -> str | None:
        """Examples without such units."""
        return missing_relevance(relevance, self.values)


class _BestGroup(Selection):
    compares = True

    def candidates(self, evidence: Evidence) -> Candidates:
        """The groups of units with the same relevance."""
        assert evidence.relevance is not None
        return of.groups(evidence.relevance, evidence.contributions)


class HighestAVX(_BestGroup):
    """``"explainability"``: the group with the highest AVX."""

    needs_similarity = True

    def check(self, layout: InputLayout) -> None:
        """Images are needed."""
        _check_image("explainability", layout)

    def criterion(
        self, candidates: Candidates, metrics: VisualExplainability, scorer: MapScorer
    ) -> Tensor | None:
        """AVX."""
        del candidates, scorer
        return metrics.avx

    def criterion_alone(
        self, candidates: Candidates, scorer: MapScorer, runner_up_maps: Tensor | None
    ) -> Tensor | None:
        """AVX, computed only where it can be the highest."""
        return scorer.highest_avx(candidates.examples, candidates.pair_maps, runner_up_maps)


class SmallestDrop(_BestGroup):
    """``"confidence"``: the group with the smallest average drop."""

    def check(self, layout: InputLayout) -> None:
        """An input that the map can mask is needed."""
        if not layout.maskable:
            raise ValueError(
                'unit_selection="confidence" lays the map on an input, and none of the inputs '
                f"{layout.input_shapes} has the {len(layout.layer_shape) - 2} spatial dimensions "
                f"of the layer {layout.layer_shape}. Use a relevance or None."
            )

    def criterion(
        self, candidates: Candidates, metrics: VisualExplainability, scorer: MapScorer
    ) -> Tensor | None:
        """Minus the average drop."""
        del candidates, scorer
        return -metrics.average_drop


class MostFaithful(Selection):
    """``"faithfulness"``: weights fitted to the confidence lost under occlusion."""

    compares = True
    needs_similarity = True

    def check(self, layout: InputLayout) -> None:
        """Images are needed."""
        _check_image("faithfulness", layout)

    def candidates(self, evidence: Evidence) -> Candidates:
        """All units, and the fitted weights at several distances from them."""
        scorer = evidence.scorer
        assert scorer is not None
        assert evidence.relevance is not None
        cells = hidden_cells(*evidence.contributions.shape[-2:])
        fitted = fitted_weights(
            scorer.confidence_in_target(),
            scorer.model.confidence_without(cells),
            evidence.relevance,
            evidence.contributions,
            positive_gradient=evidence.mean_gradients > 0,
        )
        parts = [1 - part + part * fitted for part in _PARTS_OF_THE_WAY]
        return of.weightings(torch.cat(parts), evidence.contributions)

    def criterion(
        self, candidates: Candidates, metrics: VisualExplainability, scorer: MapScorer
    ) -> Tensor | None:
        """Gains over all units in insertion and deletion, if none of these and AVX gets worse."""
        return _gains_over_all_units(candidates, metrics.avx, scorer)


def _gains_over_all_units(candidates: Candidates, avx: Tensor, scorer: MapScorer) -> Tensor:
    """(P,) minus infinity where AVX, insertion or deletion is worse than with all units.

    All units are the first candidate.
    """
    which, examples = candidates.pairs.T
    maps = candidates.pair_maps

    def gains(values: Tensor, pairs: Tensor) -> Tensor:
        of_all_units = values.new_zeros(candidates.eligible.shape[1])
        is_all = which[pairs] == 0
        of_all_units[examples[pairs][is_all]] = values[is_all]
        return values - of_all_units[examples[pairs]]

    criterion = torch.full_like(avx, -torch.inf)
    total = torch.zeros_like(avx)
    pairs = torch.arange(len(avx), device=avx.device)
    pairs = pairs[gains(avx, pairs) >= -TIE]
    # A candidate that is worse in one metric needs no more forward passes.
    for area, sign in ((scorer.insertion, 1), (scorer.deletion, -1)):
        gain = sign * gains(area(examples[pairs], maps[pairs], STEPS), pairs)
        total[pairs] += gain
        pairs = pairs[gain >= -TIE]
    criterion[pairs] = total[pairs]
    return criterion


def _check_image(name: str, layout: InputLayout) -> None:
    if not layout.is_image:
        raise ValueError(
            f'unit_selection="{name}" compares images: it needs one input N x 1 or 3 x H x W and a '
            f"layer N x C x H x W, got inputs {layout.input_shapes} and a layer "
            f"{layout.layer_shape}. For tokens or a channels-last layer give reshape_transform; "
            'otherwise use "confidence", a relevance or None.'
        )


_BY_NAME: dict[str, type[Selection]] = {
    "explainability": HighestAVX,
    "confidence": SmallestDrop,
    "faithfulness": MostFaithful,
}


def selection_of(unit_selection: object) -> Selection:
    """The object for the value of ``unit_selection``.

    Raises:
        ValueError: The value is not one of those that are documented.
    """
    if unit_selection is None:
        return AllUnits()
    if isinstance(unit_selection, str) and unit_selection in _BY_NAME:
        return _BY_NAME[unit_selection]()
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
        return UnitsWithRelevance(frozenset(values))
    raise ValueError(
        'unit_selection must be "explainability", "confidence", "faithfulness", a relevance (an '
        f"int from 0 up), a non-empty collection of them, or None, got {unit_selection!r}."
    )
