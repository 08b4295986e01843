"""Which units make the map: the values of ``unit_selection``, and the choice among groups."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from captum._utils.typing import BaselineType, TargetType
from torch import Tensor

from captum_advise._core.arguments import as_grad_kwargs
from captum_advise._core.candidates import Candidates, all_units, groups, units_with
from captum_advise._core.layer_pass import LayerPass
from captum_advise._core.masked_model import InputLayout
from captum_advise._core.scoring import MapScorer
from captum_advise._core.setting_warnings import (
    missing_relevance,
    no_evidence,
    no_explanation,
    several_runs,
    suspicious_layout,
    suspicious_pixels,
)
from captum_advise._core.targets import as_target
from captum_advise._utils.checks import check_count
from captum_advise._utils.probabilities import suspicious_confidence
from captum_advise.metrics import VisualExplainability
from captum_advise.pixels import PixelSpace

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


def choice_arguments(
    unit_selection: object,
    target: TargetType,
    grad_kwargs: object,
    baselines: BaselineType,
    internal_batch_size: int,
) -> dict[str, Any]:
    """The arguments of a choice in canonical form, by name."""
    check_count("internal_batch_size", internal_batch_size, at_least=1)
    return {
        "selection": as_selection(unit_selection),
        "target": as_target(target),
        "grad_kwargs": as_grad_kwargs(grad_kwargs),
        "baselines": baselines,
        "internal_batch_size": internal_batch_size,
    }


def layout_of(layer_pass: LayerPass, feature_map: Tensor) -> InputLayout:
    """Which inputs a map can mask: those that the run of the layer saw."""
    layout = InputLayout.of(layer_pass.call.inputs, feature_map)
    if max(layer_pass.runs) < 2 or len(layout.maskable) < 2:
        return layout
    return InputLayout.of(layer_pass.call.inputs, feature_map, layer_pass.call.inputs_seen())


def check_inputs_suit(selection: Selection, layout: InputLayout) -> None:
    """Require inputs that the maps can mask, where groups are compared."""
    if isinstance(selection, str) and not layout.maskable and layout.has_integer_images:
        raise ValueError(
            f'unit_selection="{selection}" masks the image, and the inputs {layout.input_shapes} '
            "hold integers: convert them to floating point, as the model's transform does."
        )
    if selection == "avx" and not layout.is_image:
        raise ValueError(
            'unit_selection="avx" compares images: it needs one input N x 1 or 3 x '
            f"H x W and a layer N x C x H x W, got inputs {layout.input_shapes} and a layer "
            f"{layout.layer_shape}. For tokens or a channels-last layer give "
            'reshape_transform; otherwise use "average_drop", a relevance or None.'
        )
    if selection == "average_drop" and not layout.maskable:
        raise ValueError(
            'unit_selection="average_drop" lays the map on an input, and none of the inputs '
            f"{layout.input_shapes} has the {len(layout.layer_shape) - 2} spatial dimensions "
            f"of the layer {layout.layer_shape}. Use a relevance or None."
        )


def candidates_of(
    selection: Selection, relevance: Tensor | None, contributions: Tensor
) -> Candidates:
    r"""The units among which is chosen: the groups that are compared, or those asked for."""
    if relevance is None:
        return all_units(contributions)
    if isinstance(selection, frozenset):
        return units_with(selection, relevance, contributions)
    return groups(relevance, contributions)


@dataclass(frozen=True)
class Choice:
    r"""What was compared, and what was selected.

    Attributes:
        selection: What was asked for.
        baselines: Likewise.
        contributions: (N, C, \*spatial), with their graph.
        runner_up_contributions: Likewise for the runner-up class, without a graph; None if class
            sensitivity is not measured.
        densities: (N, C, P) of the units, whose modes relevance counts; None without it.
        relevance: int64 (N, C); None if the selection does not use it.
        candidates: Of all examples.
        metrics: One entry per pair of ``candidates``; None if they were not computed.
        selected: int64 (N,) the candidate that each example selects.
        unexplained: bool (N,), whether all of several groups are as bad as can be.
        target: int64 (N,) or (N, D), as in :class:`captum_advise.Explanation`.
        images: (N, C, H, W) the model's inputs; None if they are not images.
        scorer: What measured the maps, and knows the confidences; None if there is none.
    """

    selection: Selection
    baselines: BaselineType
    contributions: Tensor
    runner_up_contributions: Tensor | None
    densities: Tensor | None
    relevance: Tensor | None
    candidates: Candidates
    metrics: VisualExplainability | None
    selected: Tensor
    unexplained: Tensor
    target: Tensor | None
    images: Tensor | None
    scorer: MapScorer | None

    @property
    def units(self) -> Tensor:
        """Bool (N, C), those that make the selected map of each example."""
        examples = torch.arange(len(self.selected), device=self.selected.device)
        return self.candidates.units[self.selected, examples]

    def grad_cam_metrics(self) -> VisualExplainability | None:
        """(N,) those of the map of all units; None without a scorer."""
        if self.scorer is None:
            return None
        every = all_units(self.contributions.detach())
        rivals = None
        if self.runner_up_contributions is not None:
            rivals = every.pair_maps_from(self.runner_up_contributions)
        return self.scorer(every.examples, every.pair_maps, rivals)


def pass_messages(layer_pass: LayerPass) -> list[str | None]:
    """What to warn of, after a forward pass."""
    call = layer_pass.call
    return [several_runs(call, layer_pass.runs), suspicious_layout(call, layer_pass.feature_maps)]


def choice_messages(
    choice: Choice,
    layer_pass: LayerPass,
    confidence: Callable[[Tensor], Tensor] | None,
    pixel_space: PixelSpace | None,
) -> list[str | None]:
    """What to warn of, after a choice. A confidence that the caller gave is None: it is right."""
    messages = [
        *pass_messages(layer_pass),
        no_evidence(choice.candidates.fallback, choice.contributions.detach()),
        no_explanation(choice.unexplained, choice.selection == "avx"),
    ]
    if choice.relevance is not None and isinstance(choice.selection, frozenset):
        messages.append(missing_relevance(choice.relevance, choice.selection))
    if choice.scorer is not None:
        if confidence is not None:
            messages.append(suspicious_confidence(layer_pass.outputs.detach(), confidence))
        needs_black = choice.selection == "avx" or (
            choice.selection == "average_drop" and choice.baselines is None
        )
        if pixel_space is not None or needs_black:
            messages.append(suspicious_pixels(choice.images, pixel_space))
    return messages
