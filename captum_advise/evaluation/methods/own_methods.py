"""This package's methods under the interface of :class:`Method`."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import ClassMaps, Context, Method
from captum_advise.evaluation.methods.layers import find_layers
from captum_advise.gated_grad_cam import GatedGradCam
from captum_advise.layer_advise import LayerAdvise


def layer_advise(**options: Any) -> Method:
    """``LayerAdvise`` with further arguments of ``LayerAdvise``."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> ClassMaps:
        attribution = LayerAdvise(
            model,
            layer,
            pixel_space=context.pixel_space,
            confidence=context.confidence,
            **options,
        )
        explanation = attribution.explain(
            inputs, target, internal_batch_size=context.internal_batch_size, with_metrics=False
        )
        weights = explanation.unit_weights[..., None, None]

        def of_class(classes: Tensor) -> Tensor:
            units = attribution.attribute(
                inputs, classes, attr_dim_summation=False, unit_selection=None
            )
            return (cast(Tensor, units).detach() * weights).sum(1, keepdim=True)

        return ClassMaps(explanation.attributions, of_class)

    return method


def gated_grad_cam(n_occlusions: int = 0) -> Method:
    """``GatedGradCam`` with the layers of the context, or with those that end with ``layer``."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        layers = context.layers or find_layers(model, layer, "gated-grad-cam", inputs).modules
        maps: Tensor = GatedGradCam(model, layers, pixel_space=context.pixel_space).attribute(
            inputs,
            target,
            n_occlusions=n_occlusions,
            internal_batch_size=context.internal_batch_size,
        )
        return maps

    return method
