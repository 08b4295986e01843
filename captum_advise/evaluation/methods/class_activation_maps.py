"""Class activation maps from feature maps and gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_advise._core.layer_pass import LayerCall
from captum_advise.evaluation.methods.interface import ClassMaps, Context


def grad_cam_plus_plus(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018), equations 10 to 19, for exp(class score)."""
    layer_pass = LayerCall(model, (layer,), (inputs,)).run()
    (maps,), (gradients,) = layer_pass.feature_maps, layer_pass.gradients(target)
    positive = gradients.relu()
    # Equation 19 is g^2 / (2 g^2 + sum(A) g^3): the squares, which may underflow, cancel.
    weights = positive / (2 + maps.sum((2, 3), keepdim=True) * positive)
    return (weights.sum((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()


def eigen_cam(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Eigen-CAM (Muhammad and Yeasin, IJCNN 2020): the first principal component of the units.

    The sign of a component is arbitrary: the map's sum is made positive.
    """
    (maps,) = LayerCall(model, (layer,), (inputs,)).feature_maps()
    # Half precision has no decomposition.
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    positions = maps.flatten(2).transpose(1, 2)
    # The eigenvectors of a small matrix: positions are fewer than units.
    left, singular, _ = torch.linalg.svd(positions, full_matrices=False)
    component = left[..., 0] * singular[:, :1]
    signed: Tensor = component * component.sum(1, keepdim=True).sign()
    return signed.view(len(maps), 1, *maps.shape[2:])


def ablation_cam(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> ClassMaps:
    """Ablation-CAM (Desai and Ramaswamy, WACV 2020). One set of ablations serves all classes.

    The paper divides the weights by the class score. That scales a map, and turns its sign if the
    score is negative, so it is left out here.
    """
    layer_pass = LayerCall(model, (layer,), (inputs,)).run()
    maps, scores = layer_pass.feature_maps[0].detach(), layer_pass.outputs.detach()
    n_images, n_units = maps.shape[:2]
    is_ablated = torch.eye(n_units, device=inputs.device, dtype=torch.bool)
    chunks = torch.split(is_ablated, max(1, context.internal_batch_size // n_images))
    with torch.no_grad():
        lost = torch.cat([scores[:, None] - _ablated(model, layer, inputs, c) for c in chunks], 1)

    def of_class(classes: Tensor) -> Tensor:
        weights = lost[torch.arange(n_images, device=inputs.device), :, classes]
        combined: Tensor = (weights[..., None, None] * maps).sum(1, keepdim=True)
        return combined.relu()

    return ClassMaps(of_class(target), of_class)


def _ablated(model: nn.Module, layer: nn.Module, inputs: Tensor, units: Tensor) -> Tensor:
    """Class scores (N, U, K) when units are set to zero: (U, C), one row per ablation.

    Captum's LayerFeatureAblation takes one class for all images, and so do its batches.
    """

    def ablate(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return output.masked_fill(units.repeat(len(inputs), 1)[..., None, None], 0)

    with layer.register_forward_hook(ablate):
        outputs: Tensor = model(inputs.repeat_interleave(len(units), 0))
    return outputs.view(len(inputs), len(units), -1)
