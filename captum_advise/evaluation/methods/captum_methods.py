"""Captum's attributions as methods."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isclass
from typing import Any, cast

from captum.attr import Attribution, GuidedGradCam, LayerAttribution
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import Context, Method, MethodAt
from captum_advise.evaluation.methods.layers import INPUT


def from_captum(method: Attribution | type[Attribution]) -> Method:
    """A method from an attribution, or from a class of them."""
    attributes_to_layer = issubclass(
        method if isclass(method) else type(method), LayerAttribution | GuidedGradCam
    )
    if not isclass(method):
        attribution = method

        def from_object(
            model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
        ) -> Tensor:
            return attribute(attribution, inputs, target)

        layer_of_object = getattr(attribution, "layer", None)
        if isinstance(layer_of_object, nn.Module):
            return MethodAt((layer_of_object,), from_object)
        return MethodAt(INPUT, from_object)

    attribution_class = cast("Callable[..., Attribution]", method)

    def from_class(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        arguments = (model, layer) if attributes_to_layer else (model,)
        return attribute(attribution_class(*arguments), inputs, target)

    return MethodAt("layer" if attributes_to_layer else INPUT, from_class)


def attribute(attribution: Attribution, inputs: Tensor, target: Tensor, **options: Any) -> Tensor:
    """The one tensor that a Captum attribution returns.

    Raises:
        ValueError: It returns something else.
    """
    result = attribution.attribute(inputs, target=target, **options)
    if isinstance(result, tuple) and len(result) == 1:
        (result,) = result
    if not isinstance(result, Tensor):
        raise ValueError(
            f"{type(attribution).__name__} returned {type(result).__name__} instead of one tensor."
        )
    return result.detach()
