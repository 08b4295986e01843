"""Modes of a density."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real, check_share

# Elements of the largest temporary.
_BLOCK = 1 << 22


def count_modes(density: Tensor, *, min_prominence: float = 1e-6) -> Tensor:
    """Number of modes of each density: interior local maxima that are prominent.

    A flat top counts once; the end points never count; a row with NaN counts zero. The prominence
    of a maximum is its height above the higher one of the two lowest points that separate it from
    higher ground or from the ends, as ``scipy.signal.peak_prominences`` defines it.

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
    if density.shape[-1] < 3:
        return density.new_zeros(density.shape[:-1], dtype=torch.int64)
    values = density.detach().double() if density.device.type != "mps" else density.detach().float()
    rows = values.reshape(-1, values.shape[-1])
    tops = _tops(rows)
    if min_prominence > 0:
        height = rows.amax(-1, keepdim=True)
        threshold = min_prominence * height
        # No prominence exceeds the height above the row's minimum.
        tops &= rows - rows.amin(-1, keepdim=True) >= threshold
        row, position = tops.nonzero().T
        at_once = max(1, _BLOCK // rows.shape[-1])
        prominent = [
            _prominence(rows[some], place) >= threshold[some, 0]
            for some, place in zip(row.split(at_once), position.split(at_once), strict=True)
        ]
        tops[row, position] = torch.cat(prominent)
    counts = tops.sum(-1) * ~rows.isnan().any(-1)
    return counts.view(density.shape[:-1])


def _tops(rows: Tensor) -> Tensor:
    """Whether each point (R, L) is an interior local maximum, or the last point of a flat one."""
    slope = rows.diff(dim=-1).sign()
    steps = torch.arange(slope.shape[-1], device=slope.device)
    last_step = torch.where(slope == 0, -1, steps).cummax(-1).values
    # On a flat stretch the slope before it decides whether what follows is a way down.
    latest = slope.gather(-1, last_step.clamp(min=0)) * (last_step >= 0)
    tops = torch.zeros_like(rows, dtype=torch.bool)
    tops[:, 1:-1] = (latest[:, :-1] > 0) & (slope[:, 1:] < 0)
    return tops


def _prominence(rows: Tensor, position: Tensor) -> Tensor:
    """Prominence (T,) of the maxima at one position (T,) of each row (T, L)."""
    points = torch.arange(rows.shape[-1], device=rows.device)
    position = position[:, None]
    height = rows.gather(-1, position)
    higher = rows > height
    start = torch.where(higher & (points < position), points, -1).amax(-1, keepdim=True)
    stop = torch.where(higher & (points > position), points, len(points)).amin(-1, keepdim=True)
    left = torch.where((points > start) & (points <= position), rows, torch.inf).amin(-1)
    right = torch.where((points >= position) & (points < stop), rows, torch.inf).amin(-1)
    return height[:, 0] - torch.maximum(left, right)
