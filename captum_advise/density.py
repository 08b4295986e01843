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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_GOLDEN = (math.sqrt(5) - 1) / 2
_MAX_WORKING_POINTS = 1000
_MAX_STEPS = 29
# Costs can be exactly flat; rounding must not decide which way the search goes there.
_COST_ROUNDING = 1e-12
# A smoothing matrix has length^2 entries: longer grids convolve by FFT.
_MAX_MATRIX_POINTS = 512
_HALF_LOG2_E = 0.5 / math.log(2)
# Smaller powers of two would be denormal numbers, which processors compute with very slowly.
_LEAST_EXPONENT = -1000.0
# Elements of the largest temporary: small enough to stay in a processor's cache.
_CPU_BLOCK = 1 << 18
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

    shape = (*samples.shape[:-1], len(grid))
    rows = samples.detach().to(grid).reshape(math.prod(samples.shape[:-1]), samples.shape[-1])
    n_points = len(grid)
    density = grid.new_full((len(rows), n_points), math.nan)
    bandwidth = torch.full_like(density, math.nan)
    for block in _blocks(rows, grid, n_bandwidths):
        found, widths = _estimate(block, tolerance)
        density[block.index] = _onto_grid(found, block.lengths, n_points)
        bandwidth[block.index] = _onto_grid(widths, block.lengths, n_points)
    cell_of_grid = grid[-1] - grid[0]
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
    if not bool((steps > 0).all()) or bool(steps.max() - steps.min() > 1e-3 * steps.mean()):
        raise ValueError("grid must be increasing and equally spaced, as torch.linspace makes it.")
    return grid


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


@dataclass(frozen=True)
class _Block:
    """Rows that are estimated together, padded to the longest working grid among them.

    ``index`` (B,) is each row's place in the input, ``lengths`` (B,) the points of its working
    grid, ``counts`` (B, L) its histogram and ``occupied`` the largest number of non-empty bins.
    ``segment`` (B,) tells to which run of rows of one length a row belongs, ``segments`` lists
    (length, rows) of the runs, ``windows`` (S, M) the bandwidths tried there, in cells.
    """

    index: Tensor
    lengths: Tensor
    counts: Tensor
    occupied: int
    segment: Tensor
    segments: tuple[tuple[int, int], ...]
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

    # Blocks of equal work, each inside one cache; a block's padding is little, as rows are sorted.
    limit = _CUDA_BLOCK if rows.is_cuda else _CPU_BLOCK
    work = (lengths * occupied.clamp(min=n_bandwidths))[order].cumsum(0)
    number = torch.div(work, limit, rounding_mode="floor")
    sizes = torch.unique_consecutive(number, return_counts=True)[1].tolist()
    if not sizes:
        return []
    windows = _windows(distinct, float(grid[-1] - grid[0]), n_bandwidths)
    return [
        _block(index, lengths[index], counts[index], occupied[index], which[index], windows)
        for index in torch.split(order, sizes)
    ]


def _block(
    index: Tensor,
    lengths: Tensor,
    counts: Tensor,
    occupied: Tensor,
    which: Tensor,
    windows: Tensor,
) -> _Block:
    kinds, segment, sizes = torch.unique_consecutive(which, return_inverse=True, return_counts=True)
    distinct = torch.unique_consecutive(lengths).tolist()
    return _Block(
        index=index,
        lengths=lengths,
        counts=counts[:, : distinct[-1]],
        occupied=int(occupied.max()),
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


def _estimate(block: _Block, tolerance: float) -> tuple[Tensor, Tensor]:
    """Density (per span of the grid) and bandwidth (likewise) on the working grids, (B, L)."""
    found, widths = _StiffnessSearch(block).run(tolerance)
    cells = (block.lengths - 1)[:, None]
    return found / found.sum(-1, keepdim=True) * cells, widths / cells


def _favoured_bandwidths(block: _Block) -> Tensor:
    """Which bandwidth has the least cost around each point, for each window: (B, M, L)."""
    n_windows = block.windows.shape[1]
    favoured = block.counts.new_zeros(
        len(block.counts), n_windows, block.counts.shape[1], dtype=_index_type(n_windows)
    )
    smoothers = _smoothers([length for length, _ in block.segments], block.windows)
    penalties = 2 / math.sqrt(2 * math.pi) / block.windows
    first = 0
    for (length, n_rows), smooth, penalty in zip(
        block.segments, smoothers, penalties.tolist(), strict=True
    ):
        at_once = max(1, _CPU_BLOCK // (2 * n_windows * length))
        for start in range(first, first + n_rows, at_once):
            rows = slice(start, min(start + at_once, first + n_rows))
            counts = block.counts[rows, :length]
            smoothed = smooth(counts)
            best = favoured[rows, :, :length]
            least = torch.full_like(smoothed, math.inf)
            for j in range(n_windows):
                estimate = smoothed[:, j]
                local = smooth(estimate.square() + counts * (penalty[j] - 2 * estimate))
                best.masked_fill_(local < least, j)
                torch.minimum(least, local, out=least)
        first += n_rows
    return favoured


def _index_type(n_values: int) -> torch.dtype:
    """The smallest type that counts so far: these tables are what the search reads most."""
    return torch.uint8 if n_values <= 256 else torch.int32


def _smoothers(lengths: list[int], windows: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """For each length, a function (B, length) -> (B, M, length): rows under each Gaussian.

    Zero padding to a power of two and circular wrap-round are part of the method.
    """
    points = torch.tensor(lengths, device=windows.device)[:, None] + 3 * windows
    sizes = torch.exp2(points.log2().ceil()).long()
    kernels = windows.new_zeros(*windows.shape, max(lengths))
    for size in torch.unique(sizes).tolist():
        frequency = torch.arange(size // 2 + 1, device=windows.device) / size
        transfer = torch.exp(
            -0.5 * (2 * math.pi * windows[sizes == size][:, None] * frequency) ** 2
        )
        kernel = torch.fft.irfft(transfer.to(torch.complex128), size)[:, : max(lengths)]
        kernels[..., : kernel.shape[-1]][sizes == size] = kernel
    for length, kernel in zip(lengths, kernels, strict=True):
        if length <= _MAX_MATRIX_POINTS:
            yield partial(_smooth_by_matrix, _toeplitz(kernel[:, :length]))
        else:
            yield partial(_smooth_by_fft, kernel[:, :length])


def _toeplitz(kernels: Tensor) -> Tensor:
    """Symmetric Toeplitz matrices with the kernels (M, L) as first rows, side by side: (L, M L)."""
    mirrored = torch.cat([kernels.flip(1), kernels[:, 1:]], 1)
    length = kernels.shape[1]
    return mirrored.unfold(1, length, 1).flip(1).permute(1, 0, 2).reshape(length, -1)


def _smooth_by_matrix(matrix: Tensor, values: Tensor) -> Tensor:
    return (values @ matrix).view(len(values), -1, values.shape[1])


def _smooth_by_fft(kernels: Tensor, values: Tensor) -> Tensor:
    """The same as by Toeplitz matrices, as a circular convolution of twice the length."""
    length = values.shape[1]
    mirrored = torch.cat([kernels, kernels.new_zeros(len(kernels), 1), kernels[:, 1:].flip(1)], 1)
    spectrum = torch.fft.rfft(values, 2 * length)[:, None]
    smoothed: Tensor = torch.fft.irfft(spectrum * torch.fft.rfft(mirrored), 2 * length)
    return smoothed[..., :length]


class _StiffnessSearch:
    """Golden-section search for each row's stiffness.

    A window is chosen at a point when the ratio of its favoured bandwidth to its width reaches
    the stiffness. The ratios take few values, the *levels* of a grid, so the choice changes only
    where the stiffness passes a level, and with it everything but a factor: between two levels
    the smoothed bandwidth is proportional to the stiffness.
    """

    def __init__(self, block: _Block) -> None:
        counts = block.counts
        n_rows, length = counts.shape
        cells = torch.arange(length, device=counts.device)
        self.segment = block.segment
        self.windows = block.windows
        self.widest = block.windows.amax(-1)[block.segment]
        self.inside = cells < block.lengths[:, None]
        self.bumps = _cumulative_gaussians(block.windows.view(-1), length)

        ratio = block.windows[:, :, None] / block.windows[:, None, :]  # (S, favoured, window)
        self.levels = torch.where(ratio < 1, ratio, math.inf).flatten(1).sort(-1).values
        n_levels = self.levels.shape[1]
        level = torch.searchsorted(self.levels, ratio.flatten(1)).view_as(ratio)
        level = torch.where(ratio < 1, level, n_levels).to(_index_type(n_levels + 1))
        favoured = _favoured_bandwidths(block)
        windows = torch.arange(ratio.shape[1], device=counts.device)[:, None]
        rank = level.mT[block.segment[:, None, None], windows, favoured.long()]
        self.floor = rank.amin(1)
        # The last window that reaches the stiffness: as many windows as have running maxima,
        # from the widest window down, that reach it.
        for window in range(rank.shape[1] - 2, -1, -1):
            torch.maximum(rank[:, window], rank[:, window + 1], out=rank[:, window])
        self.ceiling = rank

        # Levels between which this row's choice does not change share a number.
        passed = torch.zeros(n_rows, n_levels + 1, dtype=torch.bool, device=counts.device)
        for ranks in (self.ceiling.flatten(1), self.floor):
            passed.scatter_(1, ranks.long(), True)
        self.choice_of_level = passed.cumsum(1) - passed.long()

        self.levels = self.levels[block.segment]
        self.n_samples = counts.sum(-1)
        filled = counts.sort(dim=-1, descending=True, stable=True)
        self.bins = filled.indices[:, : block.occupied]
        self.weights = filled.values[:, : block.occupied]
        self.log_weights = self.weights.T[:, :, None].log2()
        self.distance2 = ((cells - self.bins.T[:, :, None]) ** 2).to(counts)

        # The search moves to and fro between two choices: one memory for each side.
        self.remembered = torch.full((2, n_rows), -1, device=counts.device)
        self.proportional = torch.zeros(2, n_rows, dtype=torch.bool, device=counts.device)
        self.memory = counts.new_zeros(2, n_rows, length)
        self.rows = torch.arange(n_rows, device=counts.device)

    def run(self, tolerance: float) -> tuple[Tensor, Tensor]:
        low = torch.full_like(self.n_samples, 1e-12)
        high = torch.ones_like(low)
        left = _GOLDEN * low + (1 - _GOLDEN) * high
        right = (1 - _GOLDEN) * low + _GOLDEN * high
        on_left = torch.zeros_like(self.segment)
        left_cost, _, _ = self.evaluate(left, on_left)
        right_cost, density, width = self.evaluate(right, on_left + 1)
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
            cost, density, width = self.evaluate(stiffness, (~go_left).long())
            left, right = (
                torch.where(to_left, stiffness, torch.where(to_right, right, left)),
                torch.where(to_right, stiffness, torch.where(to_left, left, right)),
            )
            left_cost, right_cost = (
                torch.where(to_left, cost, torch.where(to_right, right_cost, left_cost)),
                torch.where(to_right, cost, torch.where(to_left, left_cost, right_cost)),
            )
        return density, width

    def evaluate(self, stiffness: Tensor, side: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cost (B,), density and bandwidth (B, L) at each row's stiffness."""
        width = self.smoothed_bandwidth(stiffness, side)
        # exp2 of weight and distance together: exp is slow where its result is next to nothing.
        exponent = torch.addcmul(
            self.log_weights, self.distance2, width.square().reciprocal(), value=-_HALF_LOG2_E
        )
        kernel = F.threshold(exponent, _LEAST_EXPONENT, -math.inf, inplace=True).exp2_()
        density = kernel.sum(0) / width * self.inside
        density = density * (self.n_samples / density.sum(-1))[:, None]
        cost = density.square().sum(-1)
        at_bins = 2 / math.sqrt(2 * math.pi) / width - 2 * density
        cost += (self.weights * at_bins.gather(-1, self.bins)).sum(-1)
        return cost, density, width

    def smoothed_bandwidth(self, stiffness: Tensor, side: Tensor) -> Tensor:
        """Nadaraya-Watson mean of the chosen bandwidths around each point, (B, L).

        ``side`` (B,) tells which memory to use for a choice that neither holds.
        """
        level = torch.searchsorted(self.levels, stiffness[:, None]).squeeze(1)
        choice = self.choice_of_level.gather(1, level[:, None]).squeeze(1)
        known = self.remembered == choice
        new = (~known.any(0)).nonzero().squeeze(1)
        if len(new):
            smoothed, proportional, repeats = self.smooth_choice(new, level[new], stiffness[new])
            self.memory[side[new], new] = smoothed
            self.proportional[side[new], new] = proportional
            self.remembered[side[new], new] = torch.where(repeats, choice[new], -1)
        slot = torch.where(known[0], 0, torch.where(known[1], 1, side))
        factor = torch.where(self.proportional[slot, self.rows], stiffness, 1.0)
        return self.memory[slot, self.rows] * factor[:, None]

    def smooth_choice(
        self, rows: Tensor, level: Tensor, stiffness: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mean for rows whose choice is new.

        Returns it (R, L), divided by the stiffness where it is proportional to it (R,), and
        whether the choice alone decides it (R,).
        """
        n_windows = self.windows.shape[1]
        length = self.inside.shape[1]
        threshold = level.to(self.floor.dtype)[:, None]
        inside = self.inside[rows]
        below = (self.floor[rows] >= threshold) & inside
        window = (self.ceiling[rows] >= threshold[:, None]).sum(1) - 1
        all_below = (below | ~inside).all(1)
        mixed = below.any(1) & ~all_below

        # Points that reach no window's ratio take the widest bandwidth in a window of its own.
        widest = self.widest[rows]
        own = _cumulative_gaussians((widest / stiffness)[mixed], length)
        shared = len(self.bumps)
        tables = torch.cat([self.bumps, own, own.new_zeros(1, own.shape[1])])
        own_table = shared + mixed.cumsum(0) - 1
        first_table = self.segment[rows] * n_windows
        table = torch.where(below, own_table[:, None], first_table[:, None] + window)
        value = torch.where(
            below,
            (widest / stiffness)[:, None],
            self.windows.view(-1)[(first_table[:, None] + window).clamp(max=shared - 1)],
        )
        outside = len(tables) - 1
        table = table.masked_fill(~inside, outside)

        # Each run of points with one window is a difference of two cumulative Gaussians.
        table = F.pad(table, (1, 1), value=outside)
        value = F.pad(value, (1, 1))
        where, edge = (table[:, 1:] != table[:, :-1]).nonzero().T
        shifted = tables.unfold(1, length, 1)
        mass = torch.zeros_like(value[:, 1:-1])
        mean = torch.zeros_like(mass)
        for side, sign in ((edge, 1), (edge + 1, -1)):
            part = shifted[table[where, side], length - edge] * sign
            mass.index_add_(0, where, part)
            mean.index_add_(0, where, part * value[where, side][:, None])
        smoothed = torch.where(inside, mean / mass, 1.0)
        smoothed = torch.where(all_below[:, None], widest[:, None], smoothed)
        smoothed = torch.where(mixed[:, None], smoothed * stiffness[:, None], smoothed)
        return smoothed, ~(mixed | all_below), ~mixed


def _cumulative_gaussians(windows: Tensor, length: int) -> Tensor:
    """Sums of each window's Gaussian over the cells from -length up to length - 1 - j, (W, 2 L)."""
    cells = torch.arange(-length, length, device=windows.device, dtype=windows.dtype)
    bumps = torch.exp2(-_HALF_LOG2_E * (cells / windows[:, None]).square()) / windows[:, None]
    return bumps.cumsum(1).flip(1)


def _onto_grid(values: Tensor, lengths: Tensor, n_points: int) -> Tensor:
    """Linear interpolation of (B, L) from each row's working grid onto the user's."""
    cells = (lengths - 1)[:, None]
    fraction = torch.arange(n_points, device=values.device, dtype=values.dtype) / (n_points - 1)
    position = fraction * cells
    left = torch.minimum(position.floor().long(), cells - 1)
    weight = position - left
    lower, upper = values.gather(-1, left), values.gather(-1, left + 1)
    return lower + weight * (upper - lower)
