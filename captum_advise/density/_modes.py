"""Modes of a density."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real, check_share

# Elements of the largest temporary.
_BLOCK = 1 << 22


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
    if density.shape[-1] < 3:
        return density.new_zeros(density.shape[:-1], dtype=torch.int64)
    values = density.detach().double() if density.device.type != "mps" else density.detach().float()
    rows = values.reshape(-1, values.shape[-1])
    at_once = max(1, _BLOCK // rows.shape[-1])
    counts = [_counts(some, min_prominence) for some in torch.split(rows, at_once)]
    return torch.cat(counts).view(density.shape[:-1])


def _counts(rows: Tensor, min_prominence: float) -> Tensor:
    tops = _tops(rows)
    threshold = min_prominence * rows.amax(-1, keepdim=True)
    # No prominence exceeds the height above the row's minimum, and none is negative.
    tops &= (rows - rows.amin(-1, keepdim=True) >= threshold) | (threshold <= 0)
    counts = tops.sum(-1)
    if min_prominence > 0:
        prominent = _prominent(*_heights(rows, tops), threshold[:, 0])
        counts = torch.where(threshold[:, 0] > 0, prominent, counts)
    return counts * ~rows.isnan().any(-1)


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


def _heights(rows: Tensor, tops: Tensor) -> tuple[Tensor, Tensor]:
    """The T tops (T, R) of each row in order, and the lowest points (T + 1, R) around them.

    Rows with fewer tops end in tops of minus infinity, and lowest points of infinity.
    """
    # [0, 3, 1, 2, 1] < row, [0, 0, 1, 1, 2] < stretch: tops 3 and 2, lowest points 0, 1 and 1
    stretch = tops.cumsum(-1).roll(1, -1)
    stretch[:, 0] = 0
    n_tops = int(tops.sum(-1).amax()) if len(rows) else 0
    lowest = rows.new_full((len(rows), n_tops + 1), torch.inf)
    lowest.scatter_reduce_(1, stretch, rows, "amin")
    heights = rows.new_full((len(rows), n_tops + 1), -torch.inf)
    # Points that are not tops share the last place, which goes.
    heights.scatter_(1, stretch.where(tops, n_tops), rows)
    return heights[:, :-1].T.contiguous(), lowest.T.contiguous()


def _prominent(heights: Tensor, lowest: Tensor, threshold: Tensor) -> Tensor:
    """How many tops (T, R) of each row have a prominence of at least a positive threshold (R,).

    From left to right a row is a chain of hills: up by the threshold or more from the lowest point
    so far, and down by the threshold or more from the highest. The prominent tops are the highest
    of each hill, of which there may be several.
    """
    low, high = lowest[0], torch.full_like(threshold, -torch.inf)
    counts = torch.zeros_like(threshold, dtype=torch.int64)
    highest = torch.zeros_like(counts)
    # On a hill low is minus infinity, and elsewhere high is: then nothing falls.
    for top, after in zip(heights, lowest[1:], strict=True):
        rises = top - low >= threshold
        highest = torch.where(rises, torch.where(top > high, 1, highest + (top == high)), highest)
        high = torch.where(rises, torch.maximum(high, top), high)
        falls = high - after >= threshold
        counts += highest * falls
        highest *= ~falls
        low = torch.where(falls, after, torch.where(rises, -torch.inf, torch.minimum(low, after)))
        high = high.masked_fill(falls, -torch.inf)
    return counts
