"""Top pixels: how many of a map's highest pixels lie on the object."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise.metrics._maps import check_regions, numbers, single


def top_pixels(maps: Tensor, regions: Tensor) -> Tensor:
    """The share of each map's highest pixels, as many as the region has, that lie in the region.

    It depends on the order of the pixels alone, so sharpening a map does not change it. On a mosaic
    the region is the cell of the class that the map explains (Böhle, Fritz and Schiele, CVPR 2021).

    Args:
        maps, regions: As in :func:`captum_advise.metrics.pointing_game`, also what is refused.

    Returns:
        (N,) in [0, 1], or (N, M) for more than one map; larger is better, and chance is the share
        of the image that the region covers. Pixels that are tied at the limit of the highest ones
        count in equal parts.

    Example::

        >>> maps = torch.zeros(1, 1, 4, 4)
        >>> maps[0, 0, :2, 2:] = torch.tensor([[3.0, 3.0], [3.0, 0.0]])
        >>> maps[0, 0, 3, 0] = 1.0
        >>> region = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
        >>> region[..., :2, 2:] = True
        >>> top_pixels(maps, region)
        tensor([0.7500])
    """
    check_regions(maps, regions)
    inside = regions.flatten(2)
    values = numbers(maps).flatten(2)
    shares = []
    for of_image, mask in zip(torch.split(values, 1), torch.split(inside, 1), strict=True):
        count = int(mask.sum())
        limit = of_image.topk(count, 2).values[..., -1:]
        above, tied = of_image > limit, of_image == limit
        n_above, n_tied = above.sum(2), tied.sum(2)
        n_inside, n_tied_inside = (above & mask).sum(2), (tied & mask).sum(2)
        shares.append((n_inside + ((count - n_above) * n_tied_inside).float() / n_tied) / count)
    return single(torch.cat(shares))
