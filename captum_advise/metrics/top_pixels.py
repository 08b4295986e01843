"""Top pixels: how many of a map's highest pixels lie on the object."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise.metrics._maps import numbers, single
from captum_advise.metrics._regions import region_masks


def top_pixels(maps: Tensor, regions: Tensor) -> Tensor:
    """The share of each map's highest pixels, as many as the region has, that lie in the region.

    It depends on the order of the pixels alone, so sharpening a map does not change it. On a mosaic
    with a cell as the region it is the second result of
    :func:`captum_advise.metrics.grid_pointing_game`.

    Args:
        maps: (N, M, H, W), M maps for each image.
        regions: As in :func:`captum_advise.metrics.pointing_game`.

    Returns:
        (N,) in [0, 1], or (N, M) for more than one map; larger is better, and chance is the share
        of the image that the region covers. Pixels that are tied at the limit of the highest ones
        count in equal parts.

    Raises:
        TypeError: An argument is not a real tensor.
        ValueError: The shapes do not fit, or a region has no pixel.

    Example::

        >>> maps = torch.zeros(1, 1, 4, 4)
        >>> maps[0, 0, :2, 2:] = torch.tensor([[3.0, 3.0], [3.0, 0.0]])
        >>> maps[0, 0, 3, 0] = 1.0
        >>> top_pixels(maps, torch.tensor([[2, 0, 4, 2]]))
        tensor([0.7500])
    """
    maps = numbers(maps)
    masks = region_masks(maps, regions)
    counts = masks.flatten(1).sum(1).tolist()
    images = zip(torch.split(maps, 1), torch.split(masks, 1), counts, strict=True)
    shares = [top_share(of_image, mask, count) for of_image, mask, count in images]
    return single(torch.cat(shares))


def top_share(maps: Tensor, masks: Tensor, count: int) -> Tensor:
    """The share (N, M) of the ``count`` highest pixels that lie in masks (N, 1, H, W)."""
    values = maps.flatten(2)
    inside = masks.flatten(2)
    limit = values.topk(count, 2).values[..., -1:]
    above, tied = values > limit, values == limit
    n_above, n_tied = above.sum(2), tied.sum(2)
    n_inside = (above & inside).sum(2)
    n_tied_inside = (tied & inside).sum(2)
    return (n_inside + ((count - n_above) * n_tied_inside).float() / n_tied) / count
