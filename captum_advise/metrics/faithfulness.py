"""Faithfulness measures that play no part in ADVISE's choice: insertion, deletion, and Captum's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import cast

import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max as captum_sensitivity_max
from torch import Tensor

from captum_advise.class_scores import softmax_over_classes
from captum_advise.extras import package
from captum_advise.metrics.confidence import target_confidence
from captum_advise.pixels import PixelSpace, stretch

_BLUR_KERNEL, _BLUR_SIGMA = 11, 5.0


def insertion_auc(
    forward_func: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    baselines: Tensor | None = None,
    steps: int = 32,
    confidence: Callable[[Tensor], Tensor] = softmax_over_classes,
    internal_batch_size: int = 32,
) -> Tensor:
    """Area under the confidence in the target while pixels are inserted, most important first.

    Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box
    Models", BMVC 2018. The curve begins with the baseline and ends with the whole picture.

    Args:
        forward_func: (M, C, H, W) inputs to class scores (M, K).
        inputs: (N, C, H, W) model inputs.
        maps: (N, M, H, W) importance of each pixel, M maps for each input. Pixels of equal
            importance are taken row by row.
        target: (N,) int64 classes.
        baselines: What is shown where no pixel has been inserted, in the model's inputs; anything
            that broadcasts to ``inputs``. Default: :func:`blurred` inputs, as in RISE.
        steps: Into how many equal shares the pixels are divided.
        confidence: Class scores to probabilities. Default: softmax.
        internal_batch_size: How many pictures go through the model at once.

    Returns:
        (N,) in [0, 1], or (N, M) for more than one map; larger is better. The trapezoidal area, all
        pixels counting as one.

    Raises:
        ValueError: Maps of another size than the inputs, or ``steps`` below one.

    Example::

        >>> from captum_advise.pixels import upsample_maps
        >>> maps = upsample_maps(LayerGradCam(net, net.conv4).attribute(images, 3), (32, 32))
        >>> insertion_auc(net, images, maps, torch.tensor([3, 3])).shape
        torch.Size([2])
    """
    start = blurred(inputs) if baselines is None else baselines
    return _auc(
        forward_func, start, inputs, inputs, maps, target, steps, confidence, internal_batch_size
    )


def deletion_auc(
    forward_func: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    baselines: Tensor | None = None,
    pixel_space: PixelSpace | None = None,
    steps: int = 32,
    confidence: Callable[[Tensor], Tensor] = softmax_over_classes,
    internal_batch_size: int = 32,
) -> Tensor:
    """Area under the confidence in the target while pixels are deleted, most important first.

    Petsiuk et al., BMVC 2018. The curve begins with the whole picture and ends with the baseline.

    Args:
        forward_func: (M, C, H, W) inputs to class scores (M, K).
        inputs: (N, C, H, W) model inputs.
        maps: (N, M, H, W) importance of each pixel, M maps for each input. Pixels of equal
            importance are taken row by row.
        target: (N,) int64 classes.
        baselines: What deleted pixels become, in the model's inputs; anything that broadcasts to
            ``inputs``. Default: black.
        pixel_space: Says what black is. None: the lowest value of each example.
        steps: Into how many equal shares the pixels are divided.
        confidence: Class scores to probabilities. Default: softmax.
        internal_batch_size: How many pictures go through the model at once.

    Returns:
        (N,) in [0, 1], or (N, M) for more than one map; smaller is better.

    Raises:
        ValueError: Maps of another size than the inputs, or ``steps`` below one.

    Example::

        >>> from captum_advise.pixels import upsample_maps
        >>> maps = upsample_maps(LayerGradCam(net, net.conv4).attribute(images, 3), (32, 32))
        >>> deletion_auc(net, images, maps, torch.tensor([3, 3])).shape
        torch.Size([2])
    """
    if baselines is not None:
        end = baselines
    elif pixel_space is not None:
        end = pixel_space.from_pixels(inputs.new_zeros(1, inputs.shape[1], 1, 1))
    else:
        end = stretch(inputs)[0]
    return _auc(
        forward_func, inputs, end, inputs, maps, target, steps, confidence, internal_batch_size
    )


def blurred(inputs: Tensor) -> Tensor:
    """Pictures without detail: a Gaussian of standard deviation 5 pixels, cut to 11 x 11 (RISE).

    Args:
        inputs: (N, C, H, W) pictures, or model inputs.

    Returns:
        Tensor like ``inputs``. Borders are mirrored; pictures narrower than 6 pixels use the
        largest window that this allows.

    Example::

        >>> blurred(images).std() < images.std()
        tensor(True)
    """
    # When used: the rest does without torchvision, which piq brings.
    functional = package("torchvision.transforms.v2.functional")
    window = min(_BLUR_KERNEL, *(2 * side - 1 for side in inputs.shape[-2:]))
    return cast(
        Tensor, functional.gaussian_blur(inputs, [window, window], [_BLUR_SIGMA, _BLUR_SIGMA])
    )


def infidelity(
    forward_func: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    noise: float = 0.1,
    n_perturb_samples: int = 10,
    internal_batch_size: int = 32,
) -> Tensor:
    """Captum's ``infidelity`` (Yeh et al., NeurIPS 2019) of a map, under Gaussian noise.

    The map is taken as the attribution of every channel, and scaled as fits best
    (``normalize=True``), because maps have no scale of their own.

    Args:
        forward_func: (M, C, H, W) inputs to class scores (M, K).
        inputs: (N, C, H, W) model inputs.
        maps: (N, 1, H, W).
        target: (N,) int64 classes.
        noise: Standard deviation of the noise, in the model's inputs.
        n_perturb_samples: How many noisy pictures are compared per example.
        internal_batch_size: How many pictures go through the model at once.

    Returns:
        (N,) at least zero, smaller is better. Depends on torch's random state.

    Example::

        >>> from captum_advise.pixels import upsample_maps
        >>> maps = upsample_maps(LayerGradCam(net, net.conv4).attribute(images, 3), (32, 32))
        >>> infidelity(net, images, maps, torch.tensor([3, 3])).shape
        torch.Size([2])
    """

    def perturb(whole: Tensor) -> tuple[Tensor, Tensor]:
        change = noise * torch.randn_like(whole)
        return change, whole - change

    at_once = min(max(internal_batch_size, len(inputs)), len(inputs) * n_perturb_samples)
    found = captum_infidelity(
        forward_func,
        perturb,
        inputs,
        maps.expand_as(inputs),
        target=target,
        n_perturb_samples=n_perturb_samples,
        max_examples_per_batch=at_once,
        normalize=True,
    )
    # Captum's polynomial expansion of a square can end below zero by rounding.
    return cast(Tensor, found).clamp(min=0)


def sensitivity_max(
    explain: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    target: Tensor,
    *,
    perturb_radius: float = 0.02,
    n_perturb_samples: int = 10,
) -> Tensor:
    """Captum's ``sensitivity_max`` (Yeh et al., NeurIPS 2019): how far small noise moves a map.

    Args:
        explain: (M, C, H, W) inputs and (M,) targets to maps.
        inputs: (N, C, H, W) model inputs.
        target: (N,) int64 classes.
        perturb_radius: Largest change of any value, in the model's inputs.
        n_perturb_samples: How many noisy pictures are explained per example.

    Returns:
        (N,) largest change relative to the map, in the Euclidean norm; at least zero, smaller is
        better. Depends on torch's random state.

    Example::

        >>> grad_cam = LayerGradCam(net, net.conv4)
        >>> sensitivity_max(grad_cam.attribute, images, torch.tensor([3, 3])).shape
        torch.Size([2])
    """

    def explanation(pictures: tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, ...]:
        # Captum repeats several classes for the noisy pictures, but not a single one. It would
        # take the rows of a tensor for several explanations, of a tuple it does not.
        return (explain(pictures[0], target.expand(len(pictures[0]))),)

    return cast(
        Tensor,
        captum_sensitivity_max(
            explanation,
            inputs,
            perturb_radius=perturb_radius,
            n_perturb_samples=n_perturb_samples,
            target=target,
        ),
    )


@torch.no_grad()
def _auc(
    forward_func: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    inputs: Tensor,
    maps: Tensor,
    target: Tensor,
    steps: int,
    confidence: Callable[[Tensor], Tensor],
    internal_batch_size: int,
) -> Tensor:
    """Area under the confidence while the pixels turn from ``start`` into ``end``."""
    n_examples, _, height, width = inputs.shape
    n_maps = maps.shape[1] if maps.dim() == 4 else 0
    if not n_maps or maps.shape != (n_examples, n_maps, height, width):
        raise ValueError(
            f"Inputs of shape {tuple(inputs.shape)} need maps of shape "
            f"{(n_examples, 1, height, width)}, got {tuple(maps.shape)}; "
            "captum_advise.pixels.upsample_maps enlarges them."
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    order = maps.flatten(2).argsort(dim=2, descending=True, stable=True)
    places = torch.arange(height * width, device=maps.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(2, order, places).view_as(maps)
    start, end = start.expand_as(inputs), end.expand_as(inputs)

    # Rows (input, map, changed pixels). The ends of a curve are the same for all maps.
    n_pixels = height * width
    changed = [round(step * n_pixels / steps) for step in range(1, steps)]
    rows = [(row, 0, count) for count in (0, n_pixels) for row in range(n_examples)]
    rows += itertools.product(range(n_examples), range(n_maps), changed)
    heights: list[Tensor] = []
    for first in range(0, len(rows), internal_batch_size):
        some = torch.tensor(rows[first : first + internal_batch_size], device=maps.device)
        given, which, count = some.T
        turned = rank[given, which][:, None] < count.view(-1, 1, 1, 1)
        pictures = torch.where(turned, end[given], start[given])
        heights.append(target_confidence(confidence(forward_func(pictures)), target[given]))
    found = torch.cat(heights)
    begin, finish = (
        found[at : at + n_examples, None, None].expand(-1, n_maps, 1) for at in (0, n_examples)
    )
    between = found[2 * n_examples :].view(n_examples, n_maps, steps - 1)
    areas = torch.trapezoid(torch.cat([begin, between, finish], 2), dx=1 / steps)
    return areas[:, 0] if n_maps == 1 else areas
