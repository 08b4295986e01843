"""Images, maps and regions: the checks and the order that several metrics share."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_int64, check_real, kind


def check_image_pair(images: Tensor, others: Tensor) -> None:
    """Require two batches (N, 1 or 3, H, W) of one shape and type with values in [0, 1]."""
    check_real(images=images, others=others)
    if not images.is_floating_point() or images.dtype != others.dtype:
        raise TypeError(
            "images and others must have the same floating-point type, got "
            f"{kind(images)} and {kind(others)}."
        )
    if images.numel() == 0:
        raise ValueError(f"There are no images in a tensor of shape {tuple(images.shape)}.")
    if images.shape != others.shape or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            "images and others must be (N, C, H, W) of one shape, with one or three channels, got "
            f"{tuple(images.shape)} and {tuple(others.shape)}."
        )
    for name, tensor in (("images", images), ("others", others)):
        if not bool(torch.isfinite(tensor).all() & (tensor.min() >= 0) & (tensor.max() <= 1)):
            raise ValueError(f"{name} must lie in [0, 1]; scale or clamp them first.")


def check_maps(inputs: Tensor, maps: Tensor, target: Tensor) -> None:
    """Require finite maps (N, M, H, W), at least one for each of the inputs, and a target (N,)."""
    check_real(maps=maps)
    check_int64(target)
    n_examples, _, height, width = inputs.shape
    n_maps = maps.shape[1] if maps.dim() == 4 else 0
    if not n_maps or maps.shape != (n_examples, n_maps, height, width):
        raise ValueError(
            f"Inputs of shape {tuple(inputs.shape)} need maps of shape "
            f"{(n_examples, 1, height, width)}, got {tuple(maps.shape)}; "
            "captum_advise.pixels.upsample_maps enlarges them."
        )
    if target.shape != (n_examples,):
        raise ValueError(
            f"target must hold one class per example, ({n_examples},), got {tuple(target.shape)}."
        )
    check_finite(maps)


def check_finite(*maps: Tensor) -> None:
    """Require finite values."""
    if not bool(torch.stack([tensor.isfinite().all() for tensor in maps]).all()):
        raise ValueError("The maps hold values that are not finite, which have no rank.")


def check_regions(maps: Tensor, regions: Tensor) -> None:
    """Require finite maps (N, M, H, W), and masks, bool (N, 1, H, W), with a pixel each."""
    check_real(maps=maps, regions=regions)
    check_finite(maps)
    if maps.dim() != 4 or not maps.numel():
        raise ValueError(f"maps must be (N, M, H, W), got {tuple(maps.shape)}.")
    expected = (len(maps), 1, *maps.shape[2:])
    if regions.dtype != torch.bool or regions.shape != expected:
        raise ValueError(
            f"Maps of shape {tuple(maps.shape)} need regions that are masks, bool {expected}, got "
            f"{regions.dtype} of shape {tuple(regions.shape)}."
        )
    if not bool(regions.flatten(1).any(1).all()):
        raise ValueError("A region holds no pixel of its image: leave the image out.")


def pixel_ranks(maps: Tensor) -> Tensor:
    """The rank of each pixel in its map (N, M, H, W), 0 for the most important one.

    Pixels of equal importance are ranked row by row.
    """
    order = maps.flatten(2).argsort(dim=2, descending=True, stable=True)
    positions = torch.arange(order.shape[2], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(2, order, positions).view_as(maps)


def numbers(maps: Tensor) -> Tensor:
    """Maps that can be ranked: masks become 0 and 1."""
    return maps.to(torch.uint8) if maps.dtype == torch.bool else maps


def floating(maps: Tensor) -> torch.dtype:
    """The type of values of maps: theirs, or single precision for integers."""
    return maps.dtype if maps.is_floating_point() else torch.float32


def single(values: Tensor) -> Tensor:
    """Values (N, M, ...) of M maps per example, or (N, ...) if there is one."""
    return values[:, 0] if values.shape[1] == 1 else values
