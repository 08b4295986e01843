"""From a forward pass to the selected units: the method in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_advise._core.choice import Choice, Weighting
from captum_advise._core.grad_cam import check_finite, unit_contributions
from captum_advise._core.layer_pass import LayerPass
from captum_advise._core.perturbation import InputLayout, MaskedModel, resolve_baselines
from captum_advise._core.request import Request
from captum_advise._core.scoring import MapScorer, check_probabilities, class_confidences
from captum_advise._core.setting_warnings import (
    no_evidence,
    suspicious_confidence,
    suspicious_pixels,
)
from captum_advise._core.targets import Target, resolve_target, softmax_over_classes
from captum_advise.pixels import PixelSpace, resolve_pixel_space
from captum_advise.relevance import relevance_of


def weigh(request: Request, layer_pass: LayerPass) -> Weighting:
    """Nothing is compared: every tensor of the layer, whatever ``LayerGradCam`` accepts."""
    target = request.target
    if target is None and layer_pass.outputs.dim() == 2:
        target = resolve_target(layer_pass.outputs, None).captum
    elif isinstance(target, Tensor):
        target = target.to(layer_pass.outputs.device)
    gradients = layer_pass.gradients(target, **request.grad_kwargs)
    selection = request.selection
    weights: list[Tensor | None] = []
    suspicions: list[str | None] = []
    for feature_map in layer_pass.feature_maps:
        relevance = _relevance(request, feature_map)
        weights.append(None if relevance is None else selection.unit_weights(relevance))
        suspicions.append(None if relevance is None else selection.suspicion(relevance))
    contributions = map(unit_contributions, layer_pass.feature_maps, gradients)
    return Weighting(tuple(contributions), tuple(weights), tuple(filter(None, suspicions)))


def _relevance(request: Request, feature_map: Tensor) -> Tensor | None:
    if not request.selection.uses_relevance:
        return None
    return relevance_of(feature_map, request.layer.density)


def compare(
    request: Request,
    layer_pass: LayerPass,
    forward_func: Callable[..., Any],
    pixel_space: PixelSpace | None,
    confidence: Callable[[Tensor], Tensor],
    *,
    all_metrics: bool,
) -> Choice:
    """Make the candidates, measure them, and select one for each example.

    Args:
        request: The arguments of the call.
        layer_pass: The forward pass.
        forward_func: The model, for masked inputs.
        pixel_space: How its inputs relate to images.
        confidence: Turns its outputs into probabilities.
        all_metrics: Compute all metrics, not only those that the selection needs.

    Raises:
        ValueError: The layer has several tensors, or the inputs do not suit the selection.
    """
    if len(layer_pass.feature_maps) != 1:
        raise ValueError(
            f"The layer has {len(layer_pass.feature_maps)} tensors, and a choice among groups of "
            "units needs a layer with one: use a relevance or None as unit_selection."
        )
    layer_pass.check_examples(request.layer.inputs)
    (feature_map,) = layer_pass.feature_maps
    target = resolve_target(layer_pass.outputs, request.target)
    layout = InputLayout.of(request.layer.inputs, feature_map)
    request.selection.check(layout)
    scorer = _scorer(
        request, layer_pass, layout, target, forward_func, pixel_space, confidence, all_metrics
    )
    runner_up = None
    if scorer is not None and scorer.pixels is not None:
        runner_up = scorer.runner_up()

    (gradients,) = layer_pass.gradients(
        target.captum, keep_graph=runner_up is not None, **request.grad_kwargs
    )
    contributions = unit_contributions(feature_map, gradients)
    check_finite(contributions.detach())
    if scorer is not None:
        check_probabilities(scorer.confidences)
    relevance = _relevance(request, feature_map)
    candidates = request.selection.candidates(relevance, contributions.detach())

    metrics, criterion = None, None
    if scorer is not None:
        runner_up_maps = None
        if runner_up is not None:
            (gradients,) = layer_pass.gradients(runner_up.captum, **request.grad_kwargs)
            runner_up_maps = candidates.pair_maps_from(
                unit_contributions(feature_map, gradients).detach()
            )
        if not all_metrics:
            criterion = request.selection.criterion_alone(candidates, scorer, runner_up_maps)
        if criterion is None and (all_metrics or request.selection.compares):
            metrics = scorer(candidates.examples, candidates.pair_maps, runner_up_maps)
            criterion = request.selection.criterion(metrics)
    suspicions = [no_evidence(candidates.fallback)]
    if relevance is not None:
        suspicions.append(request.selection.suspicion(relevance))
    if scorer is not None:
        suspicions.append(suspicious_confidence(layer_pass.outputs.detach(), confidence))
        if layout.is_image:
            suspicions.append(
                suspicious_pixels(request.layer.inputs[layout.maskable[0]], pixel_space)
            )
    return Choice(
        contributions=contributions,
        candidates=candidates,
        selected=candidates.best(criterion),
        metrics=metrics if all_metrics else None,
        relevance=relevance,
        target=target.public(),
        confidence=None if scorer is None else scorer.confidence_in_target(),
        suspicions=tuple(filter(None, suspicions)),
    )


def _scorer(
    request: Request,
    layer_pass: LayerPass,
    layout: InputLayout,
    target: Target,
    forward_func: Callable[..., Any],
    pixel_space: PixelSpace | None,
    confidence: Callable[[Tensor], Tensor],
    all_metrics: bool,
) -> MapScorer | None:
    """Scores maps. None if that is not possible and the selection does not need it."""
    inputs, selection = request.layer.inputs, request.selection
    outputs = layer_pass.outputs.detach()
    if not selection.compares:
        is_single = outputs.dim() < 2 or outputs.shape[1] < 2
        if not layout.maskable or (is_single and confidence is softmax_over_classes):
            return None
    pixels = None
    if layout.is_image and (all_metrics or selection.needs_similarity):
        images = inputs[layout.maskable[0]].detach()
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        pixels = resolve_pixel_space(pixel_space, images)
    return MapScorer(
        model=MaskedModel(
            forward_func=forward_func,
            inputs=tuple(tensor.detach() for tensor in inputs),
            additional_forward_args=request.layer.additional_forward_args,
            maskable=layout.maskable,
            baselines=resolve_baselines(inputs, layout, request.baselines, pixel_space),
            confidence=confidence,
            target=target,
            internal_batch_size=request.internal_batch_size,
        ),
        confidences=class_confidences(confidence, outputs, target),
        pixels=pixels,
        protocol=request.protocol,
    )
