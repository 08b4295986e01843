"""ADVISE under the interface of :class:`Method`."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from captum_advise.advise import Advise
from captum_advise.evaluation.methods.interface import ClassMaps, Context, Method
from captum_advise.layer_advise import LayerAdvise
from captum_advise.zoo.layer_probe import probe


def advise(**options: Any) -> Method:
    """ADVISE with further arguments of ``LayerAdvise.explain``."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> ClassMaps:
        attribution = LayerAdvise(
            model, layer, pixel_space=context.pixel_space, confidence=context.confidence
        )
        explanation = attribution.explain(
            inputs, target, internal_batch_size=context.internal_batch_size, **options
        )
        weights = explanation.unit_weights[..., None, None]

        def of_class(classes: Tensor) -> Tensor:
            units = attribution.attribute(
                inputs, classes, attr_dim_summation=False, unit_selection=None
            )
            return (cast(Tensor, units).detach() * weights).sum(1, keepdim=True)

        return ClassMaps(explanation.attributions, of_class)

    return method


def advise_layers(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """``Advise`` with the layers that the probe finds before ``layer``."""
    names = {module: name for name, module in model.named_modules()}
    _, channels, height, width = inputs.shape
    found = probe(model, (height, width), "The model", layer=names.get(layer), channels=channels)
    attribution = Advise(
        model,
        [model.get_submodule(name) for name in found.layers],
        reshape_transform=[found.layouts.get(name) for name in found.layers],
    )
    return cast(Tensor, attribution.attribute(inputs, target))
