"""Working grids: their lengths, histograms and candidate bandwidths, and the way back.

Steps 1 to 3 of Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010, section 2.3), with
the conventions of the program that the authors of ADVISE used.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_WORKING_POINTS = 1000


def duplicates(lengths: Tensor, counts: Tensor) -> Tensor:
    """For each row its representative (R,): the first with the same grid and histogram.

    Such rows have the same density.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    mixture = torch.rand(counts.shape[1], generator=generator, dtype=counts.dtype, device="cpu")
    keys = counts @ mixture.to(counts) + lengths
    ordered, order = keys.sort(stable=True)
    first = order[torch.searchsorted(ordered, keys)]
    # The key can collide: compare what it stands for.
    same = (counts == counts[first]).all(-1) & (lengths == lengths[first])
    return torch.where(same, first, torch.arange(len(lengths), device=lengths.device))


def working_lengths(rows: Tensor, grid: Tensor) -> Tensor:
    """Points of each row's working grid (step 1); 0 if fewer than two samples lie in the grid."""
    inside = (rows >= grid[0]) & (rows <= grid[-1])
    ordered = torch.where(inside, rows, math.inf).sort(-1).values
    gaps = ordered.diff(dim=-1).nan_to_num(nan=math.inf)  # inf - inf beyond the last sample
    gap = torch.where(gaps > 0, gaps, math.inf)
    gap = gap.amin(-1) if gap.shape[-1] else rows.new_full((len(rows),), math.inf)
    coarse = ((grid[-1] - grid[0]) / gap).ceil().clamp(max=_MAX_WORKING_POINTS)
    own = (gap > grid.diff().min()) & gap.isfinite()
    lengths = torch.where(own, coarse, len(grid)).long()
    return torch.where(inside.sum(-1) >= 2, lengths, 0)


def histograms(rows: Tensor, grid: Tensor, distinct: Tensor, which: Tensor, longest: int) -> Tensor:
    """Samples per bin, (R, longest) (step 2). Bins are half open and centred on the working grid.

    The last bin takes only samples equal to its left edge. Samples right of that edge are lost.

    Args:
        rows: (R, n) samples.
        grid: (L,) the user's grid.
        distinct: int64 (S,) points of working grids.
        which: int64 (R,) index of each row's working grid among these.
        longest: Points of the longest one, at least two.
    """
    cells = torch.arange(longest, device=rows.device, dtype=rows.dtype)
    last = (distinct - 1).clamp(min=1)[:, None]
    points = grid[0] + cells * (grid[-1] - grid[0]) / last
    points = torch.where(cells == last, grid[-1], points)
    own = F.pad(grid, (0, longest - len(grid)))
    points = torch.where(distinct[:, None] == len(grid), own, points)
    steps = points.diff(dim=-1)
    within = cells[1:] <= last
    step = torch.where(within, steps, math.inf).amin(-1, keepdim=True)
    first_edge = (points[:, :1] - step / 2)[which]
    last_edge = (points.gather(-1, last) - step / 2)[which]

    inside = (rows >= grid[0]) & (rows <= grid[-1])
    bins = torch.where(inside, (rows - first_edge) / step[which], -1).floor().long()
    kept = inside & ((bins < last[which]) | (rows == last_edge))
    counts = rows.new_zeros(len(rows), longest)
    return counts.scatter_add_(-1, bins.clamp(0, longest - 1), kept.to(rows))


def candidate_bandwidths(lengths: Tensor, span: float, n_bandwidths: int) -> Tensor:
    """Candidate bandwidths on grids of these lengths, (len(lengths), M), in cells (step 3).

    In Python's arithmetic: torch's vector functions round differently in vectors of other lengths,
    and a row's result must not depend on other rows.
    """
    widths = [_bandwidths(length, span, n_bandwidths) for length in lengths.tolist()]
    return torch.tensor(widths, dtype=torch.float64, device=lengths.device).view(-1, n_bandwidths)


@lru_cache(maxsize=4096)
def _bandwidths(length: int, span: float, number: int) -> tuple[float, ...]:
    step = span / max(length - 1, 1)
    low, high = _inverse_softplus(5 * step), _inverse_softplus(span)
    fractions = (i / (number - 1) for i in range(number))
    return tuple(_softplus(low + (high - low) * fraction) / step for fraction in fractions)


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


def onto_grid(values: Tensor, lengths: Tensor, n_points: int) -> Tensor:
    """Linear interpolation from each row's working grid onto the user's, (2, B, n_points).

    Args:
        values: (2, B, L) density and bandwidth.
        lengths: int64 (B,) points of each row's grid.
        n_points: Points of the user's grid.
    """
    fraction = torch.arange(n_points, device=values.device, dtype=values.dtype) / (n_points - 1)
    last = (lengths - 1)[:, None]
    position = fraction * last
    left = torch.minimum(position.floor().long(), last - 1).expand(len(values), -1, -1)
    lower, upper = values.gather(-1, left), values.gather(-1, left + 1)
    between = lower + (position - left) * (upper - lower)
    return torch.where(
        last == n_points - 1, F.pad(values, (0, n_points - values.shape[-1])), between
    )
