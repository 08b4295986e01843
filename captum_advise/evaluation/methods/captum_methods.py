"""Captum's attributions as methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from captum.attr import Attribution, GradientShap, GuidedGradCam, LayerAttribution
from torch import Tensor, nn

from captum_advise.evaluation.methods.interface import Context, MethodAt
from captum_advise.evaluation.methods.layers import INPUT
from captum_advise.layer_advise import LayerAdvise
from captum_advise.pixels import from_pixels

# Standard deviation of SmoothGrad's noise, as a share of the image's range: 10 to 20 percent are
# the values that Smilkov et al., "SmoothGrad", 2017, recommend.
_NOISE = 0.15

Options = Mapping[str, Any]


def captum(kind: type[Attribution]) -> MethodAt:
    """A method from a class of attributions, which is made for each map."""

    def method(
        model: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor, context: Context
    ) -> Tensor:
        return attribute(kind(model, layer), inputs, target)

    if issubclass(kind, LayerAttribution | GuidedGradCam):
        return MethodAt("layer", method, selects_by_avx=issubclass(kind, LayerAdvise))
    return MethodAt(INPUT, of_inputs(kind))


def of_inputs(
    make: Callable[[nn.Module], Attribution],
    options: Callable[..., Options] = lambda inputs, context: {},
    *,
    one_by_one: bool = False,
    then: Callable[[Tensor], Tensor] = torch.positive,
) -> Callable[..., Tensor]:
    """A method from an attribution to inputs.

    ``options`` gives further arguments of ``attribute``, from the inputs, the context and settings
    by name; ``one_by_one`` says that they differ from image to image. ``then`` is applied last.
    """

    def method(
        model: nn.Module,
        layer: nn.Module,
        inputs: Tensor,
        target: Tensor,
        context: Context,
        **settings: int,
    ) -> Tensor:
        size = 1 if one_by_one else len(inputs)
        parts = zip(torch.split(inputs, size), torch.split(target, size), strict=True)
        maps = [
            attribute(make(model), images, labels, **options(images, context, **settings))
            for images, labels in parts
        ]
        return then(torch.cat(maps))

    return method


def attribute(attribution: Attribution, inputs: Tensor, target: Tensor, **options: Any) -> Tensor:
    """The one tensor that a Captum attribution returns."""
    result = attribution.attribute(inputs, target=target, **options)
    if isinstance(result, tuple) and len(result) == 1:
        (result,) = result
    if not isinstance(result, Tensor):
        raise ValueError(
            f"{type(attribution).__name__} returned {type(result).__name__} instead of one tensor."
        )
    return result.detach()


def integrated_gradients(
    inputs: Tensor, context: Context, integrated_gradients_steps: int
) -> Options:
    """Options of integrated gradients on the path from black."""
    return {
        "baselines": context.black(inputs),
        "n_steps": integrated_gradients_steps,
        "internal_batch_size": context.internal_batch_size,
    }


def smooth_grad(image: Tensor, context: Context, smooth_grad_samples: int) -> Options:
    """Options of SmoothGrad (Smilkov et al., 2017): the mean gradient of noisy images."""
    return {
        "nt_samples": smooth_grad_samples,
        "nt_samples_batch_size": context.internal_batch_size,
        "stdevs": _NOISE * float(image.max() - image.min()),
        "abs": False,
    }


def occlusion(inputs: Tensor, context: Context, occlusion_windows: int) -> Options:
    """Options of occlusion by a black window that moves by half of its side."""
    window = [max(1, side // occlusion_windows) for side in inputs.shape[-2:]]
    return {
        "sliding_window_shapes": (inputs.shape[1], *window),
        "strides": (inputs.shape[1], *(max(1, side // 2) for side in window)),
        "baselines": context.black(inputs),
        "perturbations_per_eval": context.internal_batch_size,
    }


def superpixels(image: Tensor, context: Context, lime_samples: int, lime_grid: int) -> Options:
    """Options of LIME and Kernel SHAP on rectangular superpixels, which they replace by black."""
    return {
        "baselines": context.black(image),
        "feature_mask": rectangles(image, lime_grid),
        "n_samples": lime_samples,
        "perturbations_per_eval": context.internal_batch_size,
    }


def rectangles(inputs: Tensor, grid: int) -> Tensor:
    """Numbers of ``grid`` x ``grid`` equal rectangles, int64 (1, 1, H, W)."""
    height, width = inputs.shape[-2:]
    row = torch.arange(height, device=inputs.device) * min(grid, height) // height
    column = torch.arange(width, device=inputs.device) * min(grid, width) // width
    return (row[:, None] * min(grid, width) + column)[None, None]


def expected_gradients(
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Tensor,
    context: Context,
    expected_gradients_samples: int,
) -> Tensor:
    """Expected gradients (Erion et al., 2021), with images of one random colour as baselines."""
    n_samples, n_at_once = expected_gradients_samples, context.internal_batch_size
    total = torch.zeros_like(inputs)
    for start in range(0, n_samples, n_at_once):
        n = min(n_at_once, n_samples - start)
        colours = torch.rand(n, inputs.shape[1], 1, 1).to(inputs).expand(n, *inputs.shape[1:])
        for i in range(len(inputs)):
            image = inputs[i : i + 1].detach()
            total[i] += n * attribute(
                GradientShap(model),
                inputs[i : i + 1],
                target[i : i + 1],
                baselines=from_pixels(colours, context.pixel_space, image),
                n_samples=n,
            )[0].to(total)
    return total / n_samples
