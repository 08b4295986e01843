"""Checks of two batches of images that a similarity metric compares."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real, kind


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
