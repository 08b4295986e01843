"""Captum's attributions as methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from captum.attr import Attribution, GuidedGradCam, LayerAttribution, Saliency
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


def smooth_grad(
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Tensor,
    context: Context,
    smooth_grad_samples: int,
) -> Tensor:
    """SmoothGrad (Smilkov et al., 2017): the magnitude of the mean gradient of noisy images."""
    total = _exact(torch.zeros_like(inputs))
    every = torch.arange(smooth_grad_samples, device="cpu")
    for i, image in enumerate(_exact(inputs)):
        deviation = _NOISE * (image.max() - image.min())
        for part in torch.split(every, context.internal_batch_size):
            # One by one, so that numbers do not depend on how many go through the model at once.
            noise = torch.stack([_drawn(torch.randn, *image.shape) for _ in part]).to(image)
            noisy = (image + deviation * noise).to(inputs.dtype)
            total[i] += _gradients(model, noisy, target[i]).sum(0)
    return (total / smooth_grad_samples).abs()


def expected_gradients(
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Tensor,
    context: Context,
    expected_gradients_samples: int,
) -> Tensor:
    """Expected gradients (Erion et al., 2021), with images of one random colour as baselines."""
    n, total = expected_gradients_samples, _exact(torch.zeros_like(inputs))
    every = torch.arange(n, device="cpu")
    colours = _drawn(torch.rand, n, inputs.shape[1], 1, 1).to(total)
    shares = _drawn(torch.rand, n, 1, 1, 1).to(total)
    for i, image in enumerate(_exact(inputs)):
        for part in torch.split(every, context.internal_batch_size):
            flat = colours[part].expand(-1, *image.shape)
            baselines = from_pixels(flat, context.pixel_space, image[None])
            difference = image - baselines
            between = (baselines + shares[part] * difference).to(inputs.dtype)
            total[i] += (difference * _gradients(model, between, target[i])).sum(0)
    return total / n


def _exact(images: Tensor) -> Tensor:
    """In single precision at least, for sums."""
    return images.detach().to(torch.promote_types(images.dtype, torch.float32))


def _drawn(draw: Callable[..., Tensor], *shape: int) -> Tensor:
    """The same random numbers on every device."""
    return draw(shape, dtype=torch.float32, device="cpu")


def _gradients(model: nn.Module, images: Tensor, label: Tensor) -> Tensor:
    """Of a class score at images (P, C, H, W)."""
    return attribute(Saliency(model), images, label.expand(len(images)), abs=False)
