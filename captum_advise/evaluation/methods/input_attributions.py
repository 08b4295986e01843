"""Captum's attributions to inputs, with the settings of a run."""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients, Lime, Occlusion
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import Context, attribute


def integrated_gradients(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Integrated gradients on the path from black."""
    return attribute(
        IntegratedGradients(model),
        inputs,
        target,
        baselines=context.black(inputs),
        n_steps=context.settings.integrated_gradients_steps,
        internal_batch_size=context.internal_batch_size,
    )


def occlusion(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Occlusion by a black window that moves by half of its side."""
    parts = context.settings.occlusion_windows
    window = [max(1, side // parts) for side in inputs.shape[-2:]]
    return attribute(
        Occlusion(model),
        inputs,
        target,
        sliding_window_shapes=(inputs.shape[1], *window),
        strides=(inputs.shape[1], *(max(1, side // 2) for side in window)),
        baselines=context.black(inputs),
        perturbations_per_eval=context.internal_batch_size,
    )


def lime(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """LIME on rectangular superpixels, which it replaces by black."""
    maps = [
        attribute(
            Lime(model),
            image,
            label,
            baselines=context.black(image),
            feature_mask=superpixels(image, context.settings.lime_grid),
            n_samples=context.settings.lime_samples,
            perturbations_per_eval=context.internal_batch_size,
        )
        for image, label in zip(inputs[:, None], target[:, None], strict=True)
    ]
    # Every channel of a superpixel has the superpixel's weight.
    return torch.cat(maps)[:, :1]


def superpixels(inputs: Tensor, grid: int) -> Tensor:
    """Numbers of ``grid`` x ``grid`` equal rectangles, int64 (1, 1, H, W)."""
    height, width = inputs.shape[-2:]
    row = torch.arange(height, device=inputs.device) * min(grid, height) // height
    column = torch.arange(width, device=inputs.device) * min(grid, width) // width
    return (row[:, None] * min(grid, width) + column)[None, None]
