"""Sparseness: how few pixels hold a map's mass."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real
from captum_advise.metrics._maps import check_finite, floating


def sparseness(maps: Tensor) -> Tensor:
    """Gini index of each map: how few pixels hold its mass. Maps count by their absolute values.

    Source: Chalasani, Chen, Chowdhury, Jha and Wu, "Concise Explanations of Neural Networks using
    Adversarial Training", ICML 2020; the index is that of Hurley and Rickard, IEEE Transactions on
    Information Theory 55, 2009.

    Args:
        maps: (N, ...) one map per row of the first dimension.

    Returns:
        (N,) from 0, for equal values, to 1 - 1/P, for one of P pixels that holds everything. A map
        of zeros has 0. Larger is sparser, which is easier to read but not more faithful.

    Raises:
        TypeError, ValueError: The maps are not a real tensor, not finite, or have no pixels.

    Example::

        >>> sparseness(torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 4.0, 0.0]]))
        tensor([0.0000, 0.7500])
    """
    check_real(maps=maps)
    values = maps.flatten(1) if maps.dim() > 1 else maps
    if values.dim() != 2 or not values.shape[1]:
        raise ValueError(f"maps must be (N, ...) with pixels, got {tuple(maps.shape)}.")
    check_finite(values)
    # In double precision: the index is a small difference of large sums.
    values = values.double().abs().sort(1).values
    n_pixels = values.shape[1]
    rank = torch.arange(n_pixels, dtype=values.dtype, device=values.device)
    weight = (n_pixels - rank - 0.5) / n_pixels
    total = values.sum(1)
    # Equal values give 0 up to rounding.
    index = 1 - 2 * (values * weight).sum(1) / total.where(total > 0, total.new_ones(()))
    return torch.where(total > 0, index, torch.zeros_like(index)).clamp(min=0).to(floating(maps))
