"""How similar two maps are, as sanity checks compare them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from captum_advise.metrics import fsim, ssim
from captum_advise.pixels import upsample_maps

_SHORTEST_SIDE = 32


@dataclass(frozen=True)
class MapSimilarity:
    """Result of :func:`map_similarity`, for absolute and for signed maps.

    All are (N,), and 1 for equal maps.

    Attributes:
        spearman_absolute: Rank correlation of absolute maps, at the maps' own resolution.
        spearman_signed: Rank correlation of signed maps, at the maps' own resolution.
        ssim_absolute: Structural similarity of absolute maps, at the size of the image.
        ssim_signed: Structural similarity of signed maps, at the size of the image.
        fsim_absolute: Feature similarity of absolute maps, at the size of the image.
        fsim_signed: Feature similarity of signed maps, at the size of the image.

    Example::

        >>> maps = torch.randn(2, 1, 7, 7)
        >>> map_similarity(maps, maps, (64, 64)).spearman_absolute
        tensor([1.0000, 1.0000], dtype=torch.float64)
    """

    spearman_absolute: Tensor
    spearman_signed: Tensor
    ssim_absolute: Tensor
    ssim_signed: Tensor
    fsim_absolute: Tensor
    fsim_signed: Tensor

    def to_dict(self) -> dict[str, float]:
        """Means over the examples, under the names of the attributes."""
        return {f.name: float(getattr(self, f.name).mean()) for f in fields(self)}


def map_similarity(maps: Tensor, others: Tensor, size: tuple[int, int]) -> MapSimilarity:
    """Compare maps as Adebayo et al. do, with FSIM in place of HOG.

    Args:
        maps: (N, 1, h, w), signed.
        others: Like ``maps``.
        size: Size of the images. For SSIM and FSIM, maps are scaled by their largest magnitude
            and enlarged to this size, but to at least 32 pixels per side, which FSIM's filters
            need.

    Returns:
        :class:`MapSimilarity`. The rank correlation with a constant map is 0; that of two
        constant maps is 1.

    Raises:
        ValueError: The maps differ in shape, or have more than one channel.

    Example::

        >>> maps = torch.randn(1, 1, 7, 7)
        >>> round(map_similarity(maps, -maps, (224, 224)).to_dict()["spearman_signed"], 6)
        -1.0
    """
    if maps.shape != others.shape or maps.dim() != 4 or maps.shape[1] != 1:
        raise ValueError(
            "Maps to compare must be (N, 1, h, w) of one shape, got "
            f"{tuple(maps.shape)} and {tuple(others.shape)}."
        )
    enlarged = tuple(max(side, _SHORTEST_SIDE) for side in size)
    pair = [_scaled(values.detach().double()) for values in (maps, others)]
    absolute = [upsample_maps(values.abs(), enlarged) for values in pair]
    signed = [upsample_maps((values + 1) / 2, enlarged) for values in pair]
    return MapSimilarity(
        spearman_absolute=_spearman(pair[0].abs(), pair[1].abs()),
        spearman_signed=_spearman(pair[0], pair[1]),
        ssim_absolute=ssim(absolute[0], absolute[1]),
        ssim_signed=ssim(signed[0], signed[1]),
        fsim_absolute=fsim(absolute[0], absolute[1]),
        fsim_signed=fsim(signed[0], signed[1]),
    )


def _scaled(maps: Tensor) -> Tensor:
    """Maps divided by their largest magnitude."""
    largest = maps.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    return maps / torch.where(largest > 0, largest, torch.ones_like(largest))


def _spearman(maps: Tensor, others: Tensor) -> Tensor:
    from scipy import stats

    correlations = []
    pairs = [values.flatten(1).cpu().numpy() for values in (maps, others)]
    for first, second in zip(pairs[0], pairs[1], strict=True):
        constant = [bool(np.ptp(values) == 0) for values in (first, second)]
        if any(constant):
            correlations.append(float(all(constant)))
        else:
            correlations.append(float(stats.spearmanr(first, second).statistic))
    return torch.tensor(correlations, dtype=torch.float64)
