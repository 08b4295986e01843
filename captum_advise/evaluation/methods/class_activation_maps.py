"""Class activation maps from feature maps and gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_advise._core.layer_pass import LayerCall
from captum_advise.evaluation.methods.interface import ClassMaps, Context
from captum_advise.pixels import normalize_maps


def grad_cam_plus_plus(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018), equations 10 to 19, for exp(class score)."""
    ((maps, gradients),) = _of_layers(model, (layer,), inputs, target)
    return _plus_plus(maps, gradients)


def _plus_plus(maps: Tensor, gradients: Tensor) -> Tensor:
    positive = gradients.relu()
    # Equation 19 is g^2 / (2 g^2 + sum(A) g^3): the squares, which may underflow, cancel.
    weights = positive / (2 + maps.sum((2, 3), keepdim=True) * positive)
    return (weights.sum((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()


def refine_cam(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """RefineCAM (Domeniconi et al. 2026), https://arxiv.org/abs/2605.14641.

    The product over layers of Grad-CAM++, each enlarged to the image and stretched to [0, 1].
    """
    product = torch.ones(()).to(inputs.device)
    for maps, gradients in _of_layers(model, context.layers or (layer,), inputs, target):
        product = product * _enlarged(_plus_plus(maps, gradients), inputs)
    return product


def winsor_cam(
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Tensor,
    context: Context,
    winsor_percentile: int,
) -> Tensor:
    """Winsor-CAM (Wall et al., TPAMI 2026), https://arxiv.org/abs/2507.10846.

    A weighted sum over layers of Grad-CAM, each enlarged to the image and stretched to [0, 1]. A
    layer's weight is the mean gradient over its units, if positive; positive weights are cut at
    their percentile, and then stretched to [0.1, 1].
    """
    layers = _of_layers(model, context.layers or (layer,), inputs, target)
    means = [gradients.mean((2, 3), keepdim=True) for _, gradients in layers]
    importance = torch.stack([mean.flatten(1).mean(1).relu() for mean in means], 1).float()
    weights = torch.stack([_winsorized(row, min(winsor_percentile, 100)) for row in importance])
    total = torch.zeros(()).to(inputs.device)
    for i, (mean, (maps, _)) in enumerate(zip(means, layers, strict=True)):
        grad_cam = (mean * maps).sum(1, keepdim=True).relu()
        total = total + weights[:, i, None, None, None] * _enlarged(grad_cam, inputs)
    return total


def _winsorized(importance: Tensor, percentile: int) -> Tensor:
    positive = importance > 0
    if not bool(positive.any()):
        return importance
    cut = importance.clamp(max=float(importance[positive].quantile(percentile / 100)))
    low, high = cut[positive].min(), cut.max()
    # Equal ones all count fully.
    stretched = 0.1 + 0.9 * (cut - low) / (high - low) if high > low else torch.ones_like(cut)
    return stretched * positive


def _of_layers(
    model: nn.Module, layers: tuple[nn.Module, ...], inputs: Tensor, target: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Feature maps and gradients of each layer, from one pass."""
    none = (None,) * len(layers)
    layer_pass = LayerCall(model, layers, (inputs,), reshape_transforms=none).run()
    maps = (feature_map.detach() for feature_map in layer_pass.feature_maps)
    return list(zip(maps, layer_pass.gradients(target), strict=True))


def _enlarged(maps: Tensor, inputs: Tensor) -> Tensor:
    """Maps at the size of the inputs, stretched to [0, 1], in single precision."""
    size = inputs.shape[2:]
    return normalize_maps(F.interpolate(maps.float(), size, mode="bilinear", align_corners=False))


def eigen_cam(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Eigen-CAM (Muhammad and Yeasin, IJCNN 2020): the first principal component of the units.

    The sign of a component is arbitrary: the map's sum is made positive.
    """
    (maps,), _ = LayerCall(model, (layer,), (inputs,)).feature_maps()
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
