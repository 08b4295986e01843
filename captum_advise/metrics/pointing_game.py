"""Pointing game: whether a map's maximum lies on the object."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise._utils.checks import check_count
from captum_advise.metrics._maps import check_regions, numbers, single


def pointing_game(maps: Tensor, regions: Tensor, *, tolerance: int = 15) -> Tensor:
    """Whether the maximum of each map lies in the region, or within ``tolerance`` pixels of it.

    Source: Zhang, Bargal, Lin, Brandt, Shen and Sclaroff, "Top-down Neural Attention by Excitation
    Backprop", IJCV 2018.

    Args:
        maps: (N, M, H, W), M maps for each image.
        regions: Where the object is: masks, bool (N, 1, H, W).
        tolerance: Largest distance to the region that counts as a hit, in pixels. 15 as in the
            paper.

    Returns:
        (N,), or (N, M) for more than one map. 1 is a hit, 0 a miss. Of several equal maxima, the
        share that hits.

    Raises:
        TypeError, ValueError: An argument is not a real tensor. The shapes do not fit. A region has
            no pixel. The maps are not finite. ``tolerance`` is not an int of at least 0.

    Example::

        >>> maps = torch.zeros(1, 1, 8, 8)
        >>> maps[0, 0, 2, 5] = 1.0
        >>> pointing_game(maps, maps > 0, tolerance=0)
        tensor([1.])
    """
    check_count("tolerance", tolerance, at_least=0)
    check_regions(maps, regions)
    masks = _within(regions, tolerance)
    maps = numbers(maps)
    is_maximum = maps == maps.amax((2, 3), keepdim=True)
    hits = (is_maximum & masks).sum((2, 3)).float() / is_maximum.sum((2, 3))
    return single(hits)


def _within(masks: Tensor, distance: int) -> Tensor:
    """Masks (N, 1, H, W) with the pixels that are at most this far away."""
    if not distance:
        return masks
    offsets = torch.arange(-distance, distance + 1, device=masks.device)
    disc = (offsets[:, None] ** 2 + offsets**2 <= distance**2).float()
    return F.conv2d(masks.float(), disc[None, None], padding=distance) > 0.5
