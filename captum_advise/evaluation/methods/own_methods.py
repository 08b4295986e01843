"""This package's methods, and maps that do not depend on the model."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import ClassMaps, Context
from captum_advise.evaluation.methods.layers import find_layers
from captum_advise.gated_grad_cam import GatedGradCam
from captum_advise.layer_advise import LayerAdvise


def layer_advise(
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Tensor,
    context: Context,
    **options: Any,
) -> ClassMaps:
    """``LayerAdvise`` with further arguments; the runner-up gets the units of the target."""
    attribution = LayerAdvise(
        model, layer, pixel_space=context.pixel_space, confidence=context.confidence, **options
    )
    explanation = attribution.explain(
        inputs, target, internal_batch_size=context.internal_batch_size, with_metrics=False
    )
    selected = explanation.selected_units[..., None, None]

    def of_class(classes: Tensor) -> Tensor:
        units = attribution.attribute(
            inputs, classes, attr_dim_summation=False, unit_selection=None
        )
        return (cast(Tensor, units).detach() * selected).sum(1, keepdim=True)

    return ClassMaps(explanation.attributions, of_class)


def gated_grad_cam(
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Tensor,
    context: Context,
    n_occlusions: int = 0,
) -> Tensor:
    """``GatedGradCam`` with the layers of the context, or with those that end with ``layer``."""
    layers = context.layers or find_layers(model, layer, "gated-grad-cam", inputs).modules
    attribution = GatedGradCam(
        model, layers, pixel_space=context.pixel_space, confidence=context.confidence
    )
    maps: Tensor = attribution.attribute(
        inputs, target, n_occlusions=n_occlusions, internal_batch_size=context.internal_batch_size
    )
    return maps


def random(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """A floor: uniform noise."""
    # As coarse as the map of a layer, so that it differs by its content alone. Drawn on the CPU,
    # so that a seed gives the same map on every device.
    size = [max(2, side // 32) for side in inputs.shape[-2:]]
    return torch.rand(len(inputs), 1, *size).to(inputs)


def gaussian(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """A floor: a Gaussian at the centre, with a quarter of the side as standard deviation."""
    rows, columns = (
        torch.exp(-8 * (torch.linspace(-0.5, 0.5, side, device=inputs.device) ** 2))
        for side in inputs.shape[-2:]
    )
    return (rows[:, None] * columns).expand(len(inputs), 1, -1, -1)


def edge_detector(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """A floor: magnitude of the Sobel gradient of the grey image.

    It looks like an explanation but does not use the model, so it fails sanity checks by design.
    """
    grey = nn.functional.pad(inputs.detach().mean(1, keepdim=True), (1, 1, 1, 1), mode="reflect")
    across = grey.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([across, across.T])[:, None]
    edges: Tensor = nn.functional.conv2d(grey, kernels).square().sum(1, keepdim=True).sqrt()
    return edges
