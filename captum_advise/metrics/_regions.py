"""Regions of images: boxes, or masks of pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real
from captum_advise.metrics._maps import check_finite


def region_masks(maps: Tensor, regions: Tensor) -> Tensor:
    """Regions, as in :func:`captum_advise.metrics.pointing_game`, as masks, bool (N, 1, H, W)."""
    check_real(maps=maps, regions=regions)
    check_finite(maps)
    n_examples, height, width = (
        (len(maps), *maps.shape[2:]) if maps.dim() == 4 and maps.numel() else (0, 0, 0)
    )
    if not n_examples:
        raise ValueError(f"maps must be (N, M, H, W), got {tuple(maps.shape)}.")
    if regions.dtype == torch.bool and regions.shape == (n_examples, 1, height, width):
        masks = regions
    elif (
        regions.dtype != torch.bool
        and regions.dim() in (2, 3)
        and len(regions) == n_examples
        and regions.shape[-1] == 4
    ):
        masks = _of_boxes(regions.view(n_examples, -1, 4), height, width)
    else:
        raise ValueError(
            f"Maps of shape {tuple(maps.shape)} need regions that are masks, bool "
            f"{(n_examples, 1, height, width)}, or boxes, {(n_examples, 4)} or "
            f"({n_examples}, B, 4), got {regions.dtype} of shape {tuple(regions.shape)}."
        )
    if not bool(masks.flatten(1).any(1).all()):
        raise ValueError("A region holds no pixel of its image: leave the image out.")
    return masks


def _of_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    x0, y0, x1, y1 = boxes[..., None].unbind(2)
    columns, rows = (torch.arange(side, device=boxes.device) + 0.5 for side in (width, height))
    is_column = (x0 <= columns) & (columns < x1)
    is_row = (y0 <= rows) & (rows < y1)
    return (is_row[..., :, None] & is_column[..., None, :]).any(1, keepdim=True)
