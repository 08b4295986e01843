"""Modes of a density."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real


def count_modes(density: Tensor) -> Tensor:
    """Number of interior local maxima of each density.

    A flat top counts once; the end points never count; a row with NaN counts zero.

    Args:
        density: (..., L) real numbers.

    Returns:
        (...) int64.

    Raises:
        TypeError: ``density`` is not a real tensor.
        ValueError: It is a single number.

    Example::

        >>> count_modes(torch.tensor([[0.0, 1.0, 1.0, 0.0, 2.0], [0.0, 1.0, 0.0, 2.0, 1.0]]))
        tensor([1, 2])
    """
    check_real(density=density)
    if density.dim() == 0:
        raise ValueError("density must have at least one dimension, got a single number.")
    if density.shape[-1] < 3:
        return density.new_zeros(density.shape[:-1], dtype=torch.int64)
    slope = density.diff(dim=-1).sign()
    steps = torch.arange(slope.shape[-1], device=slope.device)
    last_step = torch.where(slope == 0, -1, steps).cummax(-1).values
    # On a flat stretch the slope before it decides whether what follows is a way down.
    latest = slope.gather(-1, last_step.clamp(min=0)) * (last_step >= 0)
    tops = (latest[..., :-1] > 0) & (slope[..., 1:] < 0)
    return tops.sum(-1) * ~density.isnan().any(-1)
