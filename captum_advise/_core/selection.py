"""The kinds of ``unit_selection``: which candidates, which criterion, and what each needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from torch import Tensor

from captum_advise._core import candidates as of
from captum_advise._core.candidates import Candidates, has_relevance
from captum_advise._core.perturbation import InputLayout
from captum_advise._core.scoring import MapScorer
from captum_advise._core.setting_warnings import missing_relevance
from captum_advise.metrics import VisualExplainability

UnitSelection: TypeAlias = Literal["avx", "average_drop"] | int | Collection[int] | None


class Selection(ABC):
    """One kind of ``unit_selection``.

    Attributes:
        compares: Whether candidates are compared, which needs a scorer.
        uses_relevance: Whether it depends on the relevance of units.
        needs_similarity: Whether the criterion compares masked images with the whole ones.
    """

    compares: ClassVar[bool]
    uses_relevance: ClassVar[bool] = True
    needs_similarity: ClassVar[bool] = False

    def check(self, layout: InputLayout) -> None:  # noqa: B027 - most kinds take any inputs
        """Raise ValueError if the inputs do not suit this kind of selection."""

    @abstractmethod
    def candidates(self, relevance: Tensor | None, contributions: Tensor) -> Candidates:
        r"""What is compared.

        Args:
            relevance: int64 (N, C); None for a selection that does not use it.
            contributions: (N, C, \*spatial), detached.
        """

    def criterion(self, metrics: VisualExplainability) -> Tensor | None:
        """What the choice maximises, (P,) one value per pair; None for the only candidate."""
        del metrics
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

    def candidates(self, relevance: Tensor | None, contributions: Tensor) -> Candidates:
        """All units."""
        del relevance
        return of.all_units(contributions)


@dataclass(frozen=True)
class UnitsWithRelevance(Selection):
    """An int or several: the units with these relevances."""

    compares: ClassVar[bool] = False
    values: frozenset[int]

    def candidates(self, relevance: Tensor | None, contributions: Tensor) -> Candidates:
        """The units with these relevances."""
        assert relevance is not None
        return of.units_with(self.values, relevance, contributions)

    def unit_weights(self, relevance: Tensor) -> Tensor | None:
        """1 for these units, 0 for others."""
        return has_relevance(relevance, self.values)

    def suspicion(self, relevance: Tensor) -> str | None:
        """Examples without such units."""
        return missing_relevance(relevance, self.values)


class _BestGroup(Selection):
    compares = True

    def candidates(self, relevance: Tensor | None, contributions: Tensor) -> Candidates:
        """The groups of units with the same relevance."""
        assert relevance is not None
        return of.groups(relevance, contributions)


class HighestAVX(_BestGroup):
    """``"avx"``: the group with the highest AVX."""

    needs_similarity = True

    def check(self, layout: InputLayout) -> None:
        """Images are needed."""
        if not layout.is_image:
            raise ValueError(
                'unit_selection="avx" compares images: it needs one input N x 1 or 3 x '
                f"H x W and a layer N x C x H x W, got inputs {layout.input_shapes} and a layer "
                f"{layout.layer_shape}. For tokens or a channels-last layer give "
                'reshape_transform; otherwise use "average_drop", a relevance or None.'
            )

    def criterion(self, metrics: VisualExplainability) -> Tensor | None:
        """AVX."""
        return metrics.avx

    def criterion_alone(
        self, candidates: Candidates, scorer: MapScorer, runner_up_maps: Tensor | None
    ) -> Tensor | None:
        """AVX, computed only where it can be the highest."""
        return scorer.highest_avx(candidates.examples, candidates.pair_maps, runner_up_maps)


class SmallestDrop(_BestGroup):
    """``"average_drop"``: the group with the smallest average drop."""

    def check(self, layout: InputLayout) -> None:
        """An input that the map can mask is needed."""
        if not layout.maskable:
            raise ValueError(
                'unit_selection="average_drop" lays the map on an input, and none of the inputs '
                f"{layout.input_shapes} has the {len(layout.layer_shape) - 2} spatial dimensions "
                f"of the layer {layout.layer_shape}. Use a relevance or None."
            )

    def criterion(self, metrics: VisualExplainability) -> Tensor | None:
        """Minus the average drop."""
        return -metrics.average_drop


_BY_NAME: dict[str, type[Selection]] = {
    "avx": HighestAVX,
    "average_drop": SmallestDrop,
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
        'unit_selection must be "avx", "average_drop", a relevance (an int from 0 up), a '
        f"non-empty collection of them, or None, got {unit_selection!r}."
    )
