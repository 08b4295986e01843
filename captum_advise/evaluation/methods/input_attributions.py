"""Captum's attributions to inputs, with the settings of a run."""

from __future__ import annotations

import torch
from captum.attr import (
    GradientShap,
    IntegratedGradients,
    KernelShap,
    Lime,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor, nn

from captum_advise.evaluation.methods.captum_methods import attribute
from captum_advise.evaluation.methods.interface import Context
from captum_advise.pixels import resolve_pixel_space

# Standard deviation of SmoothGrad's noise, as a share of the image's range: 10 to 20 percent are
# the values that Smilkov et al., "SmoothGrad", 2017, recommend.
_NOISE = 0.15


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


def expected_gradients(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Expected gradients (Erion et al., 2021), with images of one random colour as baselines."""
    n_samples, n_at_once = context.settings.expected_gradients_samples, context.internal_batch_size
    total = torch.zeros_like(inputs)
    for start in range(0, n_samples, n_at_once):
        n = min(n_at_once, n_samples - start)
        colours = torch.rand(n, inputs.shape[1], 1, 1).to(inputs).expand(n, *inputs.shape[1:])
        for i in range(len(inputs)):
            space = resolve_pixel_space(context.pixel_space, inputs[i : i + 1].detach())
            total[i] += n * attribute(
                GradientShap(model),
                inputs[i : i + 1],
                target[i : i + 1],
                baselines=space.from_pixels(colours),
                n_samples=n,
            )[0].to(total)
    return total / n_samples


def smooth_grad(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """SmoothGrad (Smilkov et al., 2017): the absolute value of noisy images' mean gradient."""
    maps = [
        attribute(
            NoiseTunnel(Saliency(model)),
            image,
            label,
            nt_samples=context.settings.smooth_grad_samples,
            nt_samples_batch_size=context.internal_batch_size,
            stdevs=_NOISE * float(image.max() - image.min()),
            abs=False,
        )
        for image, label in zip(inputs[:, None], target[:, None], strict=True)
    ]
    return torch.cat(maps).abs()


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
    return _on_superpixels(Lime(model), inputs, target, context)


def kernel_shap(
    model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    """Kernel SHAP on rectangular superpixels, which it replaces by black."""
    return _on_superpixels(KernelShap(model), inputs, target, context)


def _on_superpixels(
    attribution: Lime | KernelShap, inputs: Tensor, target: Tensor, context: Context
) -> Tensor:
    maps = [
        attribute(
            attribution,
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
