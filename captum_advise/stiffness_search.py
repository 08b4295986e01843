"""The search for the stiffness of least cost, on histograms.

Shimazaki and Shinomoto's method (J. Comput. Neurosci. 29, 2010) after its first two steps: local
costs of fixed bandwidths, the bandwidth favoured inside each window, and the golden-section
search for the stiffness that ties windows to bandwidths.

Positions and bandwidths are counted in *cells*: the step of the working grid is one. Densities
and costs in cells differ from the true ones by a constant factor per row, which the search does
not see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_GOLDEN = (math.sqrt(5) - 1) / 2
_MAX_STEPS = 29
_BRACKET = 1e-5
# Costs can be exactly flat; rounding must not decide which way the search goes there.
_COST_ROUNDING = 1e-12
# A smoothing matrix has length^2 entries: longer grids convolve by FFT.
_MAX_MATRIX_POINTS = 512
# Elements of a smoothed block of rows: with its temporaries it stays in a processor's cache.
_SMOOTHING_BLOCK = 1 << 17
_HALF_LOG2_E = 0.5 / math.log(2)
# Smaller powers of two would be denormal numbers, which processors compute with very slowly.
_LEAST_EXPONENT = -1000.0
# Points through which a predicted cost goes: a parabola's.
_MODEL_POINTS = 3


@dataclass(frozen=True)
class Block:
    """Rows that are estimated together, padded to the longest working grid among them.

    ``index`` (B,) is each row's place in the input, ``lengths`` (B,) the points of its working
    grid and ``counts`` (B, L) its histogram.
    ``segment`` (B,) tells to which run of rows of one length a row belongs, ``segments`` lists
    (length, rows) of the runs, ``windows`` (S, M) the bandwidths tried there, in cells.
    """

    index: Tensor
    lengths: Tensor
    counts: Tensor
    segment: Tensor
    segments: tuple[tuple[int, int], ...]
    windows: Tensor


def estimate_block(block: Block, tolerance: float) -> tuple[Tensor, Tensor]:
    """Density (per span of the grid) and bandwidth (likewise) on the working grids, (B, L)."""
    found, widths = _StiffnessSearch(block).run(tolerance)
    cells = (block.lengths - 1)[:, None]
    return found / found.sum(-1, keepdim=True) * cells, widths / cells


def _favoured_bandwidths(block: Block) -> Tensor:
    """Which bandwidth has the least cost around each point, for each window: (B, M, L)."""
    n_rows, longest = block.counts.shape
    n_windows = block.windows.shape[1]
    favoured = block.counts.new_zeros(n_rows, n_windows, longest, dtype=_index_type(n_windows))
    kernels = _smoothing_kernels([length for length, _ in block.segments], block.windows)
    penalties = 2 / math.sqrt(2 * math.pi) / block.windows
    for group in _groups(block.segments, n_windows):
        segments = [piece.segment for piece in group]
        length = group[-1].length
        smooth = _smoother(kernels[segments, :, :length])
        # Rows (G, R) of each piece, the last one repeated where a piece has fewer.
        most = max(piece.last - piece.first for piece in group)
        offsets = torch.arange(most, device=favoured.device)
        first, last, lengths = torch.tensor(
            [(piece.first, piece.last - 1, piece.length) for piece in group], device=favoured.device
        ).T[:, :, None]
        rows = torch.minimum(first + offsets, last)
        inside = torch.arange(length, device=favoured.device) < lengths[:, :, None]

        counts = block.counts[rows, :length]
        smoothed = smooth(counts)
        best = favoured.new_zeros(smoothed.shape)
        least = torch.full_like(smoothed, math.inf)
        for j in range(n_windows):
            estimate = smoothed[:, :, j]
            penalty = penalties[segments, j][:, None, None]
            local = smooth((estimate.square() + counts * (penalty - 2 * estimate)) * inside)
            best.masked_fill_(local < least, j)
            torch.minimum(least, local, out=least)
        favoured[rows, :, :length] = best
    return favoured


class _Piece(NamedTuple):
    """Rows ``first`` to ``last`` - 1 of a block, which have one length."""

    segment: int
    length: int
    first: int
    last: int


def _groups(segments: tuple[tuple[int, int], ...], n_windows: int) -> list[list[_Piece]]:
    """Rows to smooth together: as many as a cache holds, few enough that padding is little."""
    groups: list[list[_Piece]] = []
    first = most = 0
    for segment, (length, n_rows) in enumerate(segments):
        at_once = max(1, _SMOOTHING_BLOCK // (n_windows * length))
        for start in range(first, first + n_rows, at_once):
            piece = _Piece(segment, length, start, min(start + at_once, first + n_rows))
            most = max(most, piece.last - piece.first)
            size = (len(groups[-1]) + 1 if groups else 1) * most * length * n_windows
            if groups and size <= _SMOOTHING_BLOCK and length <= _MAX_MATRIX_POINTS:
                groups[-1].append(piece)
            else:
                groups.append([piece])
                most = piece.last - piece.first
        first += n_rows
    return groups


def _index_type(n_values: int) -> torch.dtype:
    """The smallest type that counts so far: these tables are what the search reads most."""
    return torch.uint8 if n_values <= 256 else torch.int32


def _smoothing_kernels(lengths: list[int], windows: Tensor) -> Tensor:
    """Each window's Gaussian (S, M, L) at distances from zero up, on grids of these lengths.

    Zero padding to a power of two and circular wrap-round are part of the method.
    """
    longest = max(lengths)
    points = torch.tensor(lengths, device=windows.device)[:, None] + 3 * windows
    sizes = torch.exp2(points.log2().ceil()).long()
    kernels = windows.new_zeros(*windows.shape, longest)
    for size in torch.unique(sizes).tolist():
        frequency = torch.arange(size // 2 + 1, device=windows.device) / size
        angle = 2 * math.pi * windows[sizes == size][:, None] * frequency
        transfer = torch.exp2(-_HALF_LOG2_E * angle.square())
        kernel = torch.fft.irfft(transfer.to(torch.complex128), size)[:, :longest]
        kernels[..., : kernel.shape[-1]][sizes == size] = kernel
    return kernels


def _smoother(kernels: Tensor) -> Callable[[Tensor], Tensor]:
    """Function (G, R, L) -> (G, R, M, L): each row under each of its group's kernels (G, M, L)."""
    n_groups, n_windows, length = kernels.shape
    if length > _MAX_MATRIX_POINTS:
        gap = kernels.new_zeros(n_groups, n_windows, 1)
        circle = torch.cat([kernels, gap, kernels[..., 1:].flip(-1)], -1)
        transfer = torch.fft.rfft(circle)[:, None]

        def convolve(values: Tensor) -> Tensor:
            spectrum = torch.fft.rfft(values, 2 * length)[:, :, None]
            smoothed: Tensor = torch.fft.irfft(spectrum * transfer, 2 * length)
            return smoothed[..., :length]

        return convolve

    # Symmetric Toeplitz matrices side by side, (G, L, M L).
    mirrored = torch.cat([kernels.flip(-1), kernels[..., 1:]], -1)
    matrices = (
        mirrored.unfold(-1, length, 1).flip(2).permute(0, 2, 1, 3).reshape(n_groups, length, -1)
    )

    def multiply(values: Tensor) -> Tensor:
        return (values @ matrices).view(*values.shape[:2], n_windows, length)

    return multiply


@dataclass(frozen=True)
class _Place:
    """Where all rows are in their searches.

    ``stiffness`` (B,), its ``level`` and the ``choice`` made there, the ``slot`` of the memory for
    it, and whether that memory is for this choice already (``known``).
    """

    stiffness: Tensor
    level: Tensor
    choice: Tensor
    slot: Tensor
    known: Tensor


class _StiffnessSearch:
    """Golden-section search for each row's stiffness.

    A window is chosen at a point when the ratio of its favoured bandwidth to its width reaches
    the stiffness. The ratios take few values, the *levels* of a grid, so the choice changes only
    where the stiffness passes a level, and with it everything but a factor: between two levels
    the smoothed bandwidth is proportional to the stiffness.
    """

    def __init__(self, block: Block) -> None:
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
        # One entry per occupied bin, as most bins are empty.
        self.entry_row, self.entry_bin = counts.nonzero().T
        self.entry_count = counts[self.entry_row, self.entry_bin]
        self.log_count = self.entry_count.log2()[:, None]
        self.distance2 = ((cells - self.entry_bin[:, None]) ** 2).to(counts)

        # The search moves to and fro between two choices: one memory for each side.
        self.rows = torch.arange(n_rows, device=counts.device)
        self.choice = torch.full((2, n_rows), -1, device=counts.device)
        self.smoothed = counts.new_zeros(2, n_rows, length)
        self.proportional = torch.zeros(2, n_rows, dtype=torch.bool, device=counts.device)
        self.repeats = torch.zeros_like(self.proportional)
        # The last evaluations under that choice, (stiffness, cost), the latest first.
        self.points = counts.new_zeros(2, n_rows, _MODEL_POINTS, 2)
        self.n_points = torch.zeros_like(self.choice)

    def run(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """Density (not normalised) and bandwidth, both (B, L), where the search ends."""
        low = torch.full_like(self.n_samples, 1e-12)
        high = torch.ones_like(low)
        left = _GOLDEN * low + (1 - _GOLDEN) * high
        right = (1 - _GOLDEN) * low + _GOLDEN * high
        side = torch.zeros_like(self.rows)
        left_cost = self.cost(self.place(left, side), self.rows)
        side = side + 1
        place = self.place(right, side)
        right_cost = self.cost(place, self.rows)
        for _ in range(_MAX_STEPS):
            width = (high - low) / (left + right)
            active = width > _BRACKET
            if not active.any():
                break
            gain = right_cost - left_cost
            go_left = gain > _COST_ROUNDING * torch.maximum(left_cost.abs(), right_cost.abs())
            to_left, to_right = active & go_left, active & ~go_left
            high = torch.where(to_left, right, high)
            low = torch.where(to_right, left, low)
            next_left = _GOLDEN * low + (1 - _GOLDEN) * high
            next_right = (1 - _GOLDEN) * low + _GOLDEN * high
            latest = torch.where(
                to_left, next_left, torch.where(to_right, next_right, place.stiffness)
            )
            side = torch.where(active, (~go_left).long(), side)

            place = self.place(latest, side)
            cost, is_predicted = self.predicted_cost(place)
            rows = (active & ~(is_predicted & (width < tolerance))).nonzero().squeeze(1)
            if len(rows):
                cost[rows] = self.cost(place, rows)
            left, right = (
                torch.where(to_left, latest, torch.where(to_right, right, left)),
                torch.where(to_right, latest, torch.where(to_left, left, right)),
            )
            left_cost, right_cost = (
                torch.where(to_left, cost, torch.where(to_right, right_cost, left_cost)),
                torch.where(to_right, cost, torch.where(to_left, left_cost, right_cost)),
            )
        bandwidth = self.bandwidth(place, self.rows)
        return self.density(bandwidth, self.rows), bandwidth

    def place(self, stiffness: Tensor, side: Tensor) -> _Place:
        """Which choice each row makes at its stiffness, and which memory is for it."""
        level = torch.searchsorted(self.levels, stiffness[:, None])
        choice = self.choice_of_level.gather(1, level).squeeze(1)
        known = self.choice == choice
        slot = torch.where(known[0], 0, torch.where(known[1], 1, side))
        return _Place(stiffness, level.squeeze(1), choice, slot, known.any(0))

    def predicted_cost(self, place: _Place) -> tuple[Tensor, Tensor]:
        """Cost (B,) by the parabola through the last evaluations, and where there is one (B,)."""
        (x0, c0), (x1, c1), (x2, c2) = self.points[place.slot, self.rows].permute(1, 2, 0)
        slope = (c1 - c0) / (x1 - x0)
        bend = ((c2 - c1) / (x2 - x1) - slope) / (x2 - x0)
        cost = c0 + (place.stiffness - x0) * (slope + (place.stiffness - x1) * bend)
        enough = self.n_points[place.slot, self.rows] >= _MODEL_POINTS
        return cost, place.known & enough

    def cost(self, place: _Place, rows: Tensor) -> Tensor:
        """Cost (R,) of some rows, remembered."""
        entries, owner = self.entries_of(rows)
        bandwidth = self.bandwidth(place, rows)
        density = self.density(bandwidth, rows)
        bins = self.taken(self.entry_bin, entries)
        at_bins = 2 / math.sqrt(2 * math.pi) / bandwidth[owner, bins] - 2 * density[owner, bins]
        cost = density.square().sum(-1)
        cost.index_add_(0, owner, at_bins * self.taken(self.entry_count, entries))

        slot = place.slot[rows]
        latest = torch.stack([place.stiffness[rows], cost], 1)[:, None]
        self.points[slot, rows] = torch.cat([latest, self.points[slot, rows, :-1]], 1)
        self.n_points[slot, rows] += 1
        return cost

    def density(self, bandwidth: Tensor, rows: Tensor) -> Tensor:
        """Balloon estimate (R, L) at each point's bandwidth, scaled to the number of samples."""
        entries, owner = self.entries_of(rows)
        # exp2 of count and distance together: exp is slow where its result is next to nothing.
        exponent = torch.addcmul(
            self.taken(self.log_count, entries),
            self.taken(self.distance2, entries),
            bandwidth.square().reciprocal()[owner],
            value=-_HALF_LOG2_E,
        )
        kernel = F.threshold(exponent, _LEAST_EXPONENT, -math.inf, inplace=True).exp2_()
        density = torch.zeros_like(bandwidth).index_add_(0, owner, kernel) / bandwidth
        density *= self.taken(self.inside, rows)
        return density * (self.taken(self.n_samples, rows) / density.sum(-1))[:, None]

    def entries_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The entries of some rows, and for each the place of its row among them."""
        if len(rows) == len(self.rows):
            return self.entry_bin, self.entry_row
        place = torch.full_like(self.rows, -1)
        place[rows] = self.rows[: len(rows)]
        owner = place[self.entry_row]
        entries = (owner >= 0).nonzero().squeeze(1)
        return entries, owner[entries]

    def taken(self, values: Tensor, chosen: Tensor) -> Tensor:
        """The chosen ones of some values, without a copy when they are all."""
        return values if len(chosen) == len(values) else values[chosen]

    def bandwidth(self, place: _Place, rows: Tensor) -> Tensor:
        """Nadaraya-Watson mean of the chosen bandwidths around each point, (R, L)."""
        slot = place.slot[rows]
        is_known = place.known[rows]
        stale = ~(is_known & self.repeats[slot, rows])
        if stale.any():
            new, at = rows[stale], slot[stale]
            smoothed, proportional, repeats = self.smooth_choice(
                new, place.level[new], place.stiffness[new]
            )
            self.smoothed[at, new] = smoothed
            self.proportional[at, new] = proportional
            self.repeats[at, new] = repeats
            self.choice[at, new] = place.choice[new]
            self.n_points[at, new] *= is_known[stale]
        factor = torch.where(self.proportional[slot, rows], place.stiffness[rows], 1.0)
        return self.smoothed[slot, rows] * factor[:, None]

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
