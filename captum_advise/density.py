r"""Adaptive-bandwidth kernel density estimates of many rows at once, and their modes.

The estimator is Shimazaki and Shinomoto's locally adaptive one ("Kernel bandwidth optimization
in spike rate estimation", J. Comput. Neurosci. 29, 2010), with the conventions of the program
that the authors of ADVISE used. Every step works on all rows together.

This module lays the samples on their grids; :mod:`captum_advise.stiffness_search` does the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_advise.stiffness_search import Block, estimate_block
from captum_advise.validation import check_real

_MAX_WORKING_POINTS = 1000
# Elements of the largest temporary: so many that calls cost little, so few that memory is bounded.
_CPU_BLOCK = 1 << 22
_CUDA_BLOCK = 1 << 24


class AdaptiveKDE(NamedTuple):
    """Result of :func:`adaptive_kde`.

    Attributes:
        density: (..., L) float64, integrates to one over the working grid.
        bandwidth: (..., L) float64, the Gaussian's standard deviation at each grid point, in the
            units of the grid.

    Example::

        >>> density, bandwidth = adaptive_kde(torch.rand(3, 50), torch.linspace(0, 1, 50))
        >>> density.shape, density.dtype
        (torch.Size([3, 50]), torch.float64)
    """

    density: Tensor
    bandwidth: Tensor


def adaptive_kde(
    samples: Tensor, grid: Tensor, *, n_bandwidths: int = 80, tolerance: float = 0.0
) -> AdaptiveKDE:
    r"""Density of each row of samples, under a bandwidth that adapts to where it is.

    Implements the variable-bandwidth estimator of Shimazaki and Shinomoto (2010), section 2.3:
    local costs of ``n_bandwidths`` fixed bandwidths, windows whose width is tied to the bandwidth
    by a stiffness constant, Nadaraya-Watson smoothing of the bandwidths, and a golden-section
    search for the stiffness of least cost. Rows are independent of each other. Arithmetic is
    float64, but see ``tolerance``.

    Args:
        samples: (..., n) real numbers. Those outside the grid's range are left out; NaN counts
            as outside.
        grid: (L,) increasing, equally spaced points, at least two.
        n_bandwidths: How many bandwidths are tried, at least two.
        tolerance: Relative width of the search's bracket below which costs are predicted from
            the last ones evaluated instead of evaluated. Zero, the default, predicts none.
            0.1 is faster and changes hardly any mode count; from 0.05 on the search's costs are
            single precision.

    Returns:
        :class:`AdaptiveKDE` with ``density`` and ``bandwidth``, both (..., L). A row is NaN where
        the estimate is undefined: fewer than two samples inside the grid, none of them in a bin,
        or samples so far apart that the working grid has a single point.

    Raises:
        TypeError: ``samples`` or ``grid`` is not a real tensor.
        ValueError: The grid is not increasing and equally spaced, or an argument is out of range.

    Example::

        >>> samples = torch.cat([torch.linspace(0.1, 0.3, 40), torch.linspace(0.7, 0.9, 40)])
        >>> grid = torch.linspace(0, 1, 80, dtype=torch.float64)
        >>> estimate = adaptive_kde(samples, grid)
        >>> estimate.density.shape, int(count_modes(estimate.density))
        (torch.Size([80]), 2)
    """
    grid = _checked_grid(samples, grid)
    if n_bandwidths < 2:
        raise ValueError(f"n_bandwidths must be at least 2, got {n_bandwidths}.")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be at least 0 and less than 1, got {tolerance}.")

    shape = (*samples.shape[:-1], len(grid))
    rows = samples.detach().to(grid).reshape(math.prod(samples.shape[:-1]), samples.shape[-1])
    n_points = len(grid)
    density = grid.new_full((len(rows), n_points), math.nan)
    bandwidth = torch.full_like(density, math.nan)
    lengths = _working_lengths(rows, grid)
    distinct, which = torch.unique(lengths, return_inverse=True)
    counts = _histograms(rows, grid, distinct, which)
    windows = _windows(distinct, float(grid[-1] - grid[0]), n_bandwidths)
    twins = _twins(lengths, counts)
    for block in _blocks(lengths, counts, which, windows, twins):
        found, widths = estimate_block(block, tolerance)
        density[block.index] = _onto_grid(found, block.lengths, n_points)
        bandwidth[block.index] = _onto_grid(widths, block.lengths, n_points)
    density, bandwidth = density[twins], bandwidth[twins]
    cell_of_grid = grid[-1] - grid[0]
    return AdaptiveKDE((density / cell_of_grid).view(shape), (bandwidth * cell_of_grid).view(shape))


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


def _checked_grid(samples: Tensor, grid: Tensor) -> Tensor:
    check_real(samples=samples, grid=grid)
    if samples.dim() == 0:
        raise ValueError("samples must have at least one dimension, got a single number.")
    if grid.dim() != 1 or len(grid) < 2:
        raise ValueError(f"grid must be (L,) with at least two points, got {tuple(grid.shape)}.")
    grid = grid.detach().to(samples.device, torch.float64)
    steps = grid.diff()
    if not bool((steps > 0).all()) or bool(steps.max() - steps.min() > 1e-3 * steps.mean()):
        raise ValueError("grid must be increasing and equally spaced, as torch.linspace makes it.")
    return grid


def _twins(lengths: Tensor, counts: Tensor) -> Tensor:
    """For each row a row (R,) with the same working grid and histogram, hence the same density."""
    generator = torch.Generator().manual_seed(0)
    mixture = torch.rand(counts.shape[1], generator=generator, dtype=counts.dtype)
    keys, which = torch.unique(counts @ mixture.to(counts) + lengths, return_inverse=True)
    rows = torch.arange(len(lengths), device=lengths.device)
    first = torch.full_like(keys, len(lengths), dtype=torch.int64)
    twins = first.scatter_reduce_(0, which, rows, "amin")[which]
    same = (counts == counts[twins]).all(-1) & (lengths == lengths[twins])
    return torch.where(same, twins, rows)


def _blocks(
    lengths: Tensor, counts: Tensor, which: Tensor, windows: Tensor, twins: Tensor
) -> list[Block]:
    """The rows that have a density, one of each set of twins, cut into blocks of like rows."""
    occupied = (counts > 0).sum(-1)
    is_first = twins == torch.arange(len(twins), device=twins.device)
    wanted = (lengths >= 2) & (occupied > 0) & is_first
    # Rows with the same working grid share tables, and little is padded among like histograms.
    order = (lengths * counts.shape[1] + occupied).argsort(stable=True)
    order = order[wanted[order]]

    # Blocks of equal work, in bounded memory.
    limit = _CUDA_BLOCK if counts.is_cuda else _CPU_BLOCK
    work = (lengths * occupied.clamp(min=windows.shape[1]))[order].cumsum(0)
    number = torch.div(work, limit, rounding_mode="floor")
    sizes = torch.unique_consecutive(number, return_counts=True)[1].tolist()
    if not sizes:
        return []
    return [
        _block(index, lengths[index], counts[index], which[index], windows)
        for index in torch.split(order, sizes)
    ]


def _block(
    index: Tensor,
    lengths: Tensor,
    counts: Tensor,
    which: Tensor,
    windows: Tensor,
) -> Block:
    kinds, segment, sizes = torch.unique_consecutive(which, return_inverse=True, return_counts=True)
    distinct = torch.unique_consecutive(lengths).tolist()
    return Block(
        index=index,
        lengths=lengths,
        counts=counts[:, : distinct[-1]],
        segment=segment,
        segments=tuple(zip(distinct, sizes.tolist(), strict=True)),
        windows=windows[kinds],
    )


def _working_lengths(rows: Tensor, grid: Tensor) -> Tensor:
    """Points of each row's working grid; 0 where fewer than two samples lie inside the grid."""
    inside = (rows >= grid[0]) & (rows <= grid[-1])
    ordered = torch.where(inside, rows, math.inf).sort(-1).values
    gaps = ordered.diff(dim=-1).nan_to_num(nan=math.inf)  # inf - inf beyond the last sample
    gap = torch.where(gaps > 0, gaps, math.inf)
    gap = gap.amin(-1) if gap.shape[-1] else rows.new_full((len(rows),), math.inf)
    coarse = ((grid[-1] - grid[0]) / gap).ceil().clamp(max=_MAX_WORKING_POINTS)
    own = (gap > grid.diff().min()) & gap.isfinite()
    lengths = torch.where(own, coarse, len(grid)).long()
    return torch.where(inside.sum(-1) >= 2, lengths, 0)


def _histograms(rows: Tensor, grid: Tensor, distinct: Tensor, which: Tensor) -> Tensor:
    """Samples per bin, (R, longest): bins are half open and centred on the working grid.

    The last bin is closed to all but its left edge, so samples right of that edge are lost.
    """
    # At least two points, so that there is a step even where no row has a working grid.
    longest = max([2, *distinct.tolist()])
    cells = torch.arange(longest, device=rows.device, dtype=rows.dtype)
    last = (distinct - 1).clamp(min=1)[:, None]
    points = grid[0] + cells * (grid[-1] - grid[0]) / last
    points = torch.where(cells == last, grid[-1], points)
    points = torch.where(distinct[:, None] == len(grid), _padded(grid, longest), points)
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


def _padded(values: Tensor, length: int) -> Tensor:
    return F.pad(values, (0, length - len(values)))


def _windows(lengths: Tensor, span: float, n_bandwidths: int) -> Tensor:
    """The bandwidths tried on grids of these lengths, (len(lengths), M), in cells."""
    step = span / (lengths.to(torch.float64) - 1).clamp(min=1)
    low, high = _inverse_softplus(5 * step), _inverse_softplus(torch.full_like(step, span))
    fraction = torch.linspace(0, 1, n_bandwidths, dtype=torch.float64, device=lengths.device)
    spaced = low[:, None] + (high - low)[:, None] * fraction
    return F.softplus(spaced, threshold=100) / step[:, None]


def _inverse_softplus(values: Tensor) -> Tensor:
    return values + torch.log(-torch.expm1(-values))


def _onto_grid(values: Tensor, lengths: Tensor, n_points: int) -> Tensor:
    """Linear interpolation of (B, L) from each row's working grid onto the user's."""
    if values.shape[1] == n_points and bool((lengths == n_points).all()):
        return values
    cells = (lengths - 1)[:, None]
    fraction = torch.arange(n_points, device=values.device, dtype=values.dtype) / (n_points - 1)
    position = fraction * cells
    left = torch.minimum(position.floor().long(), cells - 1)
    weight = position - left
    lower, upper = values.gather(-1, left), values.gather(-1, left + 1)
    return lower + weight * (upper - lower)
