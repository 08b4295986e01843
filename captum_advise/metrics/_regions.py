"""Regions of images, as masks of pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real
from captum_advise.metrics._maps import check_finite


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
