"""Modes of a density."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real, check_share
from captum_advise.density._engine import mode_counter_for


def count_modes(density: Tensor, *, min_prominence: float = 1e-6) -> Tensor:
    """Number of modes of each density: interior local maxima that are prominent.

    A flat top counts once; the end points never count; a row with NaN counts zero. Prominence is
    that of ``scipy.signal.peak_prominences``. On each side of a maximum, take the lowest point
    before higher ground or the end: prominence is the height above the higher one of the two.

    Args:
        density: (..., L) real numbers.
        min_prominence: The least prominence that counts, as a share of the row's maximum. Far
            from all samples an estimated density is 1e-20 or less of its maximum, and local maxima
            there are rounding. Zero counts every local maximum, as the authors' program does.

    Returns:
        (...) int64.

    Raises:
        TypeError: ``density`` is not a real tensor, or ``min_prominence`` not a number.
        ValueError: ``density`` is a single number, or ``min_prominence`` is out of range.

    Example::

        >>> density = torch.tensor([[0.0, 1.0, 1.0, 0.0, 2.0], [0.0, 1.0, 0.9, 2.0, 1.0]])
        >>> count_modes(density)
        tensor([1, 2])
        >>> count_modes(density, min_prominence=0.1)
        tensor([1, 1])
    """
    check_real(density=density)
    check_share("min_prominence", min_prominence)
    if density.dim() == 0:
        raise ValueError("density must have at least one dimension, got a single number.")
    if density.numel() == 0:
        return density.new_zeros(density.shape[:-1], dtype=torch.int64)
    values = density.detach().double() if density.device.type != "mps" else density.detach().float()
    rows = values.reshape(-1, values.shape[-1])
    # NaN for a row with NaN, and nothing is as high.
    threshold = min_prominence * rows.amax(-1)
    count = mode_counter_for(rows.device, rows.shape[1])
    return count(rows, threshold).view(density.shape[:-1])
