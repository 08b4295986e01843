r"""Adaptive-bandwidth kernel density estimates of many rows at once, and their modes.

The estimator is Shimazaki and Shinomoto's locally adaptive one ("Kernel bandwidth optimization
in spike rate estimation", J. Comput. Neurosci. 29, 2010), with the conventions of the program
that the authors of ADVISE used. Every step works on all rows together.

Inside this module positions and bandwidths are counted in *cells*: the step of the working grid
is one. Densities and costs in cells differ from the true ones by a constant factor per row,
which the search does not see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_GOLDEN = (math.sqrt(5) - 1) / 2
_MAX_WORKING_POINTS = 1000
_MAX_STEPS = 29
# Costs can be exactly flat; rounding must not decide which way the search goes there.
_COST_ROUNDING = 1e-12
# A smoothing matrix has length^2 entries: longer grids convolve by FFT.
_MAX_MATRIX_POINTS = 512
# Elements of the largest temporary: small enough to stay in a processor's cache.
_CPU_BLOCK = 1 << 17
_CUDA_BLOCK = 1 << 24


class AdaptiveKDE(NamedTuple):
    """Result of :func:`adaptive_kde`.

    Attributes:
        density: (..., L) float64, integrates to one over the working grid.
        bandwidth: (..., L) float64, the Gaussian's standard deviation at each grid point, in the
            units of the grid.
    """

    density: Tensor
    bandwidth: Tensor


def adaptive_kde(
    samples: Tensor, grid: Tensor, *, n_bandwidths: int = 80, tolerance: float = 1e-5
) -> AdaptiveKDE:
    r"""Density of each row of samples, under a bandwidth that adapts to where it is.

    Implements the variable-bandwidth estimator of Shimazaki and Shinomoto (2010), section 2.3:
    local costs of ``n_bandwidths`` fixed bandwidths, windows whose width is tied to the bandwidth
    by a stiffness constant, Nadaraya-Watson smoothing of the bandwidths, and a golden-section
    search for the stiffness of least cost. Rows are independent of each other. All arithmetic is
    float64.

    Args:
        samples: (..., n) real numbers. Those outside the grid's range are left out; NaN counts
            as outside.
        grid: (L,) increasing, equally spaced points, at least two.
        n_bandwidths: How many bandwidths are tried, at least two.
        tolerance: Relative width at which the search for the stiffness ends. The default is the
            published program's; larger is faster and less exact.

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
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}.")

    rows = samples.detach().reshape(-1, samples.shape[-1]).to(grid)
    n_points = len(grid)
    density = grid.new_full((len(rows), n_points), math.nan)
    bandwidth = torch.full_like(density, math.nan)
    for block in _blocks(rows, grid, n_bandwidths):
        found, widths = _estimate(block, tolerance)
        density[block.index] = _onto_grid(found, block.lengths, n_points)
        bandwidth[block.index] = _onto_grid(widths, block.lengths, n_points)
    cell_of_grid = grid[-1] - grid[0]
    shape = (*samples.shape[:-1], n_points)
    return AdaptiveKDE((density / cell_of_grid).view(shape), (bandwidth * cell_of_grid).view(shape))


def count_modes(density: Tensor) -> Tensor:
    """Number of interior local maxima of each density.

    A flat top counts once; the end points never count; a row with NaN counts zero.

    Args:
        density: (..., L) real numbers.

    Returns:
        (...) int64.

    Example::

        >>> count_modes(torch.tensor([[0.0, 1.0, 1.0, 0.0, 2.0], [0.0, 1.0, 0.0, 2.0, 1.0]]))
        tensor([1, 2])
    """
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
    for name, tensor in (("samples", samples), ("grid", grid)):
        if not isinstance(tensor, Tensor) or tensor.is_complex():
            raise TypeError(f"{name} must be a real tensor, got {_kind(tensor)}.")
    if samples.dim() == 0:
        raise ValueError("samples must have at least one dimension, got a single number.")
    if grid.dim() != 1 or len(grid) < 2:
        raise ValueError(f"grid must be (L,) with at least two points, got {tuple(grid.shape)}.")
    grid = grid.detach().to(samples.device, torch.float64)
    steps = grid.diff()
    if not bool((steps > 0).all()) or bool(steps.max() - steps.min() > 1e-6 * steps.mean()):
        raise ValueError("grid must be increasing and equally spaced, as torch.linspace makes it.")
    return grid


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


@dataclass(frozen=True)
class _Block:
    """Rows that are estimated together, padded to the longest working grid among them.

    ``index`` (B,) is each row's place in the input, ``lengths`` (B,) the points of its working
    grid, ``counts`` (B, L) its histogram and ``occupied`` the largest number of non-empty bins.
    ``segments`` lists (length, first row, last row + 1), ``windows`` (S, M) the bandwidths tried
    on each segment's grid, in cells.
    """

    index: Tensor
    lengths: Tensor
    counts: Tensor
    occupied: int
    segments: tuple[tuple[int, int, int], ...]
    windows: Tensor


def _blocks(rows: Tensor, grid: Tensor, n_bandwidths: int) -> list[_Block]:
    """Histograms of the rows that have a density, cut into blocks of like rows."""
    lengths = _working_lengths(rows, grid)
    distinct, which = torch.unique(lengths, return_inverse=True)
    counts = _histograms(rows, grid, distinct, which)
    occupied = (counts > 0).sum(-1)
    defined = (lengths >= 2) & (occupied > 0)
    # Rows with the same working grid share tables, and like occupancy wastes little padding.
    order = (lengths * (counts.shape[-1] + 1) + occupied).argsort(stable=True)
    order = order[defined[order]]

    windows = _windows(distinct, float(grid[-1] - grid[0]), n_bandwidths)
    limit = _CUDA_BLOCK if rows.is_cuda else _CPU_BLOCK
    facts = torch.stack([lengths[order], occupied[order], which[order]], 1).tolist()
    blocks = []
    start = 0
    while start < len(facts):
        stop, most = start, 0
        while stop < len(facts):
            longest = facts[stop][0]
            most = max(most, facts[stop][1])
            if stop > start and (stop + 1 - start) * longest * max(most, n_bandwidths) > limit:
                break
            stop += 1
        members = facts[start:stop]
        starts = [i for i in range(len(members)) if i == 0 or members[i][0] != members[i - 1][0]]
        segments = tuple(
            (members[first][0], first, last)
            for first, last in zip(starts, [*starts[1:], len(members)], strict=True)
        )
        index = order[start:stop]
        blocks.append(
            _Block(
                index,
                lengths[index],
                counts[index, : members[-1][0]],
                max(fact[1] for fact in members),
                segments,
                windows[[members[first][2] for first in starts]],
            )
        )
        start = stop
    return blocks


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
    return counts.scatter_add_(-1, bins.clamp(0, max(longest - 1, 0)), kept.to(rows))


def _padded(values: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, length - len(values)))


def _windows(lengths: Tensor, span: float, n_bandwidths: int) -> Tensor:
    """The bandwidths tried on grids of these lengths, (len(lengths), M), in cells."""
    step = span / (lengths.to(torch.float64) - 1).clamp(min=1)
    low = torch.log(torch.expm1(5 * step))
    high = torch.log(torch.expm1(torch.full_like(step, span)))
    fraction = torch.linspace(0, 1, n_bandwidths, dtype=torch.float64, device=lengths.device)
    spaced = low[:, None] + (high - low)[:, None] * fraction
    return torch.nn.functional.softplus(spaced, threshold=100) / step[:, None]


def _estimate(block: _Block, tolerance: float) -> tuple[Tensor, Tensor]:
    """Density (per span of the grid) and bandwidth (likewise) on the working grids, (B, L)."""
    search = _StiffnessSearch(block)
    found, widths = search.run(tolerance)
    cells = (block.lengths - 1)[:, None]
    return found / found.sum(-1, keepdim=True) * cells, widths / cells


def _favoured_windows(block: _Block) -> Tensor:
    """Ratio of the best bandwidth inside each window to the window's width, (B, M, L)."""
    n_rows, longest = block.counts.shape
    n_windows = block.windows.shape[1]
    # Beyond a row's own grid a ratio of one never marks a change.
    ratio = block.counts.new_ones(n_rows, n_windows, longest)
    for (length, first, last), windows in zip(block.segments, block.windows, strict=True):
        smooth = _smoother(length, windows)
        rows_at_once = max(1, 4 * _CPU_BLOCK // (n_windows**2 * length))
        for start in range(first, last, rows_at_once):
            rows = slice(start, min(start + rows_at_once, last))
            counts = block.counts[rows, None, :length]
            smoothed = smooth(counts).squeeze(1)
            cost = smoothed**2 - 2 * counts * smoothed
            cost += 2 / math.sqrt(2 * math.pi) * counts / windows[:, None]
            best = smooth(cost).argmin(1)
            ratio[rows, :, :length] = windows[best] / windows[:, None]
    return ratio


def _smoother(length: int, windows: Tensor):  # type: ignore[no-untyped-def]
    """Function (B, J, length) -> (B, J, M, length): each row under each window's Gaussian.

    Zero padding to a power of two and circular wrap-round are part of the method.
    """
    sizes = [2 ** math.ceil(math.log2(length + 3 * window)) for window in windows.tolist()]
    transfer = [
        torch.exp(
            -0.5
            * (2 * math.pi * window * torch.arange(size // 2 + 1, device=windows.device) / size)
            ** 2
        )
        for window, size in zip(windows, sizes, strict=True)
    ]
    if length > _MAX_MATRIX_POINTS:

        def smooth_long(values: Tensor) -> Tensor:
            return torch.stack(
                [
                    torch.fft.irfft(torch.fft.rfft(values, size) * gain, size)[..., :length]
                    for size, gain in zip(sizes, transfer, strict=True)
                ],
                -2,
            )

        return smooth_long

    kernels = torch.stack(
        [
            torch.fft.irfft(gain.to(torch.complex128), size)[:length]
            for size, gain in zip(sizes, transfer, strict=True)
        ]
    )
    cells = torch.arange(length, device=windows.device)
    offsets = (cells[:, None] - cells).abs()
    matrix = kernels[:, offsets].permute(1, 0, 2).reshape(length, -1)

    def smooth(values: Tensor) -> Tensor:
        flat = values.reshape(-1, length) @ matrix
        return flat.view(*values.shape[:-1], len(windows), length)

    return smooth


class _StiffnessSearch:
    """Golden-section search for each row's stiffness."""

    def __init__(self, block: _Block) -> None:
        counts = block.counts
        n_rows, length = counts.shape
        device = counts.device
        cells = torch.arange(length, device=device)
        sizes = torch.tensor([last - first for _, first, last in block.segments], device=device)
        self.windows = block.windows.repeat_interleave(sizes, 0)
        self.inside = cells < block.lengths[:, None]
        ratio = _favoured_windows(block)
        # The last window whose ratio reaches g is the number of running maxima (from the
        # widest window down) that reach it.
        self.ceiling = ratio.flip(1).cummax(1).values.flip(1)
        self.floor = ratio.amin(1)
        self.distance2 = ((cells[:, None] - cells) ** 2).to(counts)

        self.n_samples = counts.sum(-1)
        filled = counts.sort(dim=-1, descending=True, stable=True)
        bins = filled.indices[:, : block.occupied]
        self.weights = filled.values[:, : block.occupied].T[:, :, None].contiguous()
        self.bins = bins
        self.bin_weights = filled.values[:, : block.occupied]
        self.bin_distance2 = ((cells - bins.T[:, :, None]) ** 2).to(counts)

    def run(self, tolerance: float) -> tuple[Tensor, Tensor]:
        low = torch.full_like(self.n_samples, 1e-12)
        high = torch.ones_like(low)
        left = _GOLDEN * low + (1 - _GOLDEN) * high
        right = (1 - _GOLDEN) * low + _GOLDEN * high
        left_cost, _, _ = self.evaluate(left)
        right_cost, density, width = self.evaluate(right)
        stiffness = right
        for _ in range(_MAX_STEPS):
            active = high - low > tolerance * (left + right)
            if not active.any():
                break
            gain = right_cost - left_cost
            go_left = gain > _COST_ROUNDING * torch.maximum(left_cost.abs(), right_cost.abs())
            to_left, to_right = active & go_left, active & ~go_left
            high = torch.where(to_left, right, high)
            low = torch.where(to_right, left, low)
            stiffness = torch.where(
                to_left,
                _GOLDEN * low + (1 - _GOLDEN) * high,
                torch.where(to_right, (1 - _GOLDEN) * low + _GOLDEN * high, stiffness),
            )
            # A row that is done is evaluated again where it was, which changes nothing.
            cost, density, width = self.evaluate(stiffness)
            left, right = (
                torch.where(to_left, stiffness, torch.where(to_right, right, left)),
                torch.where(to_right, stiffness, torch.where(to_left, left, right)),
            )
            left_cost, right_cost = (
                torch.where(to_left, cost, torch.where(to_right, right_cost, left_cost)),
                torch.where(to_right, cost, torch.where(to_left, left_cost, right_cost)),
            )
        return density, width

    def evaluate(self, stiffness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cost (B,), density and bandwidth (B, L) at each row's stiffness."""
        width = self.smoothed_bandwidth(stiffness)
        kernel = self.bin_distance2 * (-0.5 / width**2)
        kernel = kernel.exp_().mul_(self.weights)
        density = kernel.sum(0) / width * self.inside
        density = density * (self.n_samples / density.sum(-1))[:, None]
        cost = (density**2).sum(-1)
        at_bins = 2 / math.sqrt(2 * math.pi) / width - 2 * density
        cost += (self.bin_weights * at_bins.gather(-1, self.bins)).sum(-1)
        return cost, density, width

    def smoothed_bandwidth(self, stiffness: Tensor) -> Tensor:
        reached = (self.ceiling >= stiffness[:, None, None]).sum(1) - 1
        chosen = self.windows.gather(-1, reached)
        widest = self.windows.amax(-1, keepdim=True)
        below = stiffness[:, None] < self.floor
        spread = torch.where(below, widest / stiffness[:, None], chosen)
        value = spread * stiffness[:, None]
        z = torch.exp(-0.5 * self.distance2 / spread[:, None, :] ** 2) / spread[:, None, :]
        z = z * self.inside[:, None, :]
        smoothed = (z * value[:, None, :]).sum(-1) / z.sum(-1)
        return torch.where(self.inside, smoothed, 1.0)


def _onto_grid(values: Tensor, lengths: Tensor, n_points: int) -> Tensor:
    """Linear interpolation of (B, L) from each row's working grid onto the user's."""
    cells = (lengths - 1)[:, None]
    fraction = torch.arange(n_points, device=values.device, dtype=values.dtype) / (n_points - 1)
    position = fraction * cells
    left = torch.minimum(position.floor().long(), cells - 1)
    weight = position - left
    lower, upper = values.gather(-1, left), values.gather(-1, left + 1)
    return lower + weight * (upper - lower)
