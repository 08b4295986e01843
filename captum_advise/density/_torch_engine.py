"""Steps 4 to 7 of the method in torch, on any device: the reference of the compiled kernels.

The method is that of Shimazaki and Shinomoto (J. Comput. Neurosci. 29, 2010, section 2.3). Rows
with working grids of one length are estimated together. Positions and bandwidths are counted in
*cells*: the step of the grid is one. B rows, L points, M windows, which are the bandwidths too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# A smoothing matrix has length^2 entries: longer grids convolve by FFT.
_MAX_MATRIX_POINTS = 512
# In narrower windows, in cells, a Gaussian is not what its frequencies up to the highest add up to.
NARROW = 4.5
GOLDEN = (math.sqrt(5) - 1) / 2
LOW = 1e-12
MAX_STEPS = 29
BRACKET = 1e-5
# Costs can be exactly flat; rounding must not decide which way the search goes there.
COST_ROUNDING = 1e-12
PENALTY = 2 / math.sqrt(2 * math.pi)
_HALF_LOG2_E = 0.5 / math.log(2)
# Smaller powers of two would be denormal numbers, which processors compute with very slowly.
_LEAST_EXPONENT = -1000.0


def estimate_in_torch(counts: Tensor, lengths: Tensor, windows: Tensor) -> Tensor:
    """Density and bandwidth on the working grids, both per span of the grid: (2, B, L).

    Args:
        counts: (B, L) histograms, zero after the end of a row's grid.
        lengths: (B,) points of each row's grid, in order.
        windows: (B, M) candidate bandwidths.
    """
    distinct, n_rows = torch.unique_consecutive(lengths, return_counts=True)
    sizes = n_rows.tolist()
    n_bins = torch.split((counts > 0).sum(-1).cpu(), sizes)
    pieces = zip(torch.split(counts, sizes), torch.split(windows, sizes), n_bins, strict=True)
    runs = [
        _Run(histograms[:, :length], widths[0], int(most.amax()))
        for length, (histograms, widths, most) in zip(distinct.tolist(), pieces, strict=True)
    ]

    def cost_at(stiffness: Tensor) -> Tensor:
        parts = zip(runs, torch.split(stiffness, sizes), strict=True)
        return torch.cat([run.cost_at(part) for run, part in parts])

    stiffness = _search(cost_at, len(counts), counts)
    parts = zip(runs, torch.split(stiffness, sizes), strict=True)
    return torch.cat(
        [F.pad(run.estimate_at(part), (0, counts.shape[1] - run.length)) for run, part in parts], 1
    )


class _Run:
    """Rows with working grids of one length: histograms (B, L), windows (M,), most bins used."""

    def __init__(self, counts: Tensor, windows: Tensor, n_bins: int) -> None:
        self.length = counts.shape[1]
        self._bandwidths = _SmoothedBandwidths(_optimal_bandwidths(counts, windows), windows)
        self._balloon = _Balloon(counts, n_bins)

    def cost_at(self, stiffness: Tensor) -> Tensor:
        inverse = self._bandwidths.inverse_at(stiffness)
        return self._balloon.cost(self._balloon.density(inverse), inverse)

    def estimate_at(self, stiffness: Tensor) -> Tensor:
        inverse = self._bandwidths.inverse_at(stiffness)
        density = self._balloon.density(inverse)
        cells = self.length - 1
        density = density / density.sum(-1, keepdim=True) * cells
        return torch.stack([density, 1 / (inverse * cells)])


# Local costs (steps 4 and 5)


def smoothing_kernels(length: int, windows: Tensor) -> Tensor:
    """Each window's Gaussian (M, L) at distances from zero up, on a grid of this length.

    Zero padding to a power of two and circular wrap-round are part of the method.
    """
    circles = torch.exp2((length + 3 * windows).log2().ceil()).long()
    distances = torch.arange(length, device=windows.device, dtype=windows.dtype)
    turns = torch.arange(-3, 4, device=windows.device)[:, None, None]
    scaled = (distances + turns * circles[:, None]) / windows[:, None]
    # exp2, as exp is slow where its result is next to nothing.
    kernels = torch.exp2(-_HALF_LOG2_E * scaled.square()).sum(0)
    kernels /= math.sqrt(2 * math.pi) * windows[:, None]
    # The circle's highest frequency matters to narrow windows, on tiny grids only.
    for i in (windows < NARROW).nonzero()[:, 0].tolist():
        circle = int(circles[i])
        frequency = torch.arange(circle // 2 + 1, device=windows.device).to(windows) / circle
        angle = 2 * math.pi * windows[i] * frequency
        kernel = torch.fft.irfft(torch.exp(-0.5 * angle.square()).to(torch.complex128), circle)
        kernels[i] = kernel[:length]
    return kernels


def _smoother(length: int, windows: Tensor) -> Callable[[Tensor], Tensor]:
    """What smooths rows (B, L) with each window: (B, M, L)."""
    kernels = smoothing_kernels(length, windows)
    if length > _MAX_MATRIX_POINTS:
        gap = torch.zeros_like(kernels[:, :1])
        transfer = torch.fft.rfft(torch.cat([kernels, gap, kernels[:, 1:].flip(-1)], -1))

        def convolve(rows: Tensor) -> Tensor:
            spectrum = torch.fft.rfft(rows, 2 * length)[:, None]
            smoothed: Tensor = torch.fft.irfft(spectrum * transfer, 2 * length)[..., :length]
            return smoothed

        return convolve

    cells = torch.arange(length, device=kernels.device)
    matrices = kernels[:, (cells[:, None] - cells).abs()].transpose(0, 1).flatten(1)
    return lambda rows: (rows @ matrices).view(len(rows), -1, length)


def _optimal_bandwidths(counts: Tensor, windows: Tensor) -> Tensor:
    """The bandwidth (B, M, L) of least cost around each point, for each window."""
    smooth = _smoother(counts.shape[1], windows)
    smoothed = smooth(counts)
    least = torch.full_like(smoothed, math.inf)
    optimal = torch.empty_like(smoothed)
    for estimate, width in zip(smoothed.unbind(1), windows, strict=True):
        cost = estimate.square() - 2 * counts * estimate + PENALTY / width * counts
        local = smooth(cost)
        # The first one wins on ties.
        torch.where(local < least, width, optimal, out=optimal)
        torch.minimum(least, local, out=least)
    return optimal


# Windows at a stiffness, and the smoothed bandwidths (step 6)


class _SmoothedBandwidths:
    """Nadaraya-Watson means of the bandwidths that a stiffness chooses.

    A window qualifies at a point if the ratio of its optimal bandwidth to its width is at least the
    stiffness. The last window that qualifies is chosen. Its number is the number of windows whose
    running maximum of ratios, from the last window down, reaches the stiffness.
    """

    def __init__(self, optimal: Tensor, windows: Tensor) -> None:
        # One row, three points, windows of 2, 4 and 8 cells:
        # [[2, 4, 8], [2, 2, 8], [2, 4, 8]] < optimal bandwidths
        # [[1, 2, 4], [.5, .5, 2], [.25, .5, 1]] < ratios
        # [[1, 2, 4], [.5, .5, 2], [.25, .5, 1]].max(from each window on) < ceiling
        # [.25, .5, 1] < floor
        # At a stiffness of 0.4, [2, 3, 3] windows are reached, and the widths are [4, own, own]:
        # points where every window qualifies take the widest bandwidth, in a window of 8 / 0.4.
        ratios = optimal / windows[:, None]
        self._floor = ratios.amin(1)
        self._ceiling = ratios.flip(1).cummax(1).values.flip(1)
        self._windows = windows
        # Tables of Gaussians: those of the windows, then one for each row.
        n_rows, _, length = optimal.shape
        self._own = len(windows) + torch.arange(n_rows, device=windows.device)[:, None]
        self._distances = torch.arange(1 - length, length, device=windows.device).to(windows)
        self._tables = _gaussians(windows, self._distances)
        self._first = torch.arange(length - 1, -1, -1, device=windows.device)

    def inverse_at(self, stiffness: Tensor) -> Tensor:
        """One over the smoothed bandwidths (B, L) at each row's stiffness (B,)."""
        least = stiffness[:, None]
        reached = (self._ceiling >= least[:, None]).sum(1)
        own_width = self._windows.amax() / stiffness
        which = torch.where(self._floor >= least, self._own, reached - 1)
        width = torch.cat([self._windows, own_width])[which]
        tables = torch.cat([self._tables, _gaussians(own_width, self._distances)])

        # Point l adds to all points the part of its Gaussian's table that begins at distance -l.
        # One table, three points:
        # [g(-2), g(-1), g(0), g(1), g(2)] < table
        # [[g(0), g(1), g(2)], [g(-1), g(0), g(1)], [g(-2), g(-1), g(0)]] < parts of points 0, 1, 2
        length = len(self._first)
        parts = tables.flatten().unfold(0, length, 1)
        starts = which * tables.shape[1] + self._first
        mass = F.embedding_bag(starts, parts, mode="sum")
        mean = F.embedding_bag(starts, parts, mode="sum", per_sample_weights=width)
        return mass / (mean * least)


def _gaussians(widths: Tensor, distances: Tensor) -> Tensor:
    """Gaussians (W, D) of these widths at some distances (D,), all of the same mass."""
    return torch.exp2(-_HALF_LOG2_E * (distances / widths[:, None]).square()) / widths[:, None]


# The balloon estimator (Terrell and Scott, Ann. Statist. 20, 1992) and its cost (step 6)


class _Balloon:
    """At each point the sum of all samples' Gaussians of the bandwidth at that point."""

    def __init__(self, counts: Tensor, n_bins: int) -> None:
        # Most bins are empty. The occupied ones come first, and only they enter the sums:
        # [0, 3, 0, 1] < counts
        # [1, 3], [3, 1] < bins and their counts
        bins = (counts > 0).byte().argsort(dim=-1, descending=True, stable=True)
        self._bins = bins[:, :n_bins]
        self._counts = counts.gather(1, self._bins)
        self._n_samples = counts.sum(-1)
        cells = torch.arange(counts.shape[1], device=counts.device, dtype=counts.dtype)
        self._squares = (cells - self._bins[..., None]).square_().mul_(-_HALF_LOG2_E)

    def density(self, inverse: Tensor) -> Tensor:
        """Densities (B, L) at these inverse bandwidths (B, L), not normalised."""
        exponent = self._squares * inverse.square()[:, None]
        # exp is slow where its result is almost zero; exp2 is not.
        kernel = F.threshold(exponent, _LEAST_EXPONENT, -math.inf, inplace=True).exp2_()
        return torch.bmm(self._counts[:, None], kernel)[:, 0] * inverse

    def cost(self, density: Tensor, inverse: Tensor) -> Tensor:
        """Costs (B,) of the densities, scaled to the number of samples."""
        scale = self._n_samples / density.sum(-1)
        fit: Tensor = torch.linalg.vecdot(self._counts, density.gather(1, self._bins))
        penalty: Tensor = torch.linalg.vecdot(self._counts, inverse.gather(1, self._bins))
        power: Tensor = torch.linalg.vecdot(density, density)
        return scale * (scale * power - 2 * fit) + PENALTY * penalty


# Golden-section search (step 7)


def _search(cost_at: Callable[[Tensor], Tensor], n_rows: int, like: Tensor) -> Tensor:
    """The stiffness (B,) that each row's search tries last.

    Rows whose search has ended are computed on: to leave them out, a GPU would have to be asked
    which they are.

    Args:
        cost_at: From a stiffness (B,) of each row to its cost (B,).
        n_rows: B.
        like: A tensor of the type and on the device of the result.
    """
    low, high = like.new_full((n_rows,), LOW), like.new_ones(n_rows)
    left, right = _between(low, high)
    left_cost, right_cost = cost_at(left), cost_at(right)
    latest = right
    for _ in range(MAX_STEPS):
        active = high - low > BRACKET * (left + right)
        gain = right_cost - left_cost
        is_left = gain > COST_ROUNDING * torch.maximum(left_cost.abs(), right_cost.abs())
        to_left, to_right = active & is_left, active & ~is_left
        high, low = torch.where(to_left, right, high), torch.where(to_right, left, low)
        next_left, next_right = _between(low, high)
        latest = torch.where(to_left, next_left, torch.where(to_right, next_right, latest))
        cost = cost_at(latest)
        # The point that stays inside the bracket becomes the other one of the two.
        left, right = (
            torch.where(to_left, latest, torch.where(to_right, right, left)),
            torch.where(to_right, latest, torch.where(to_left, left, right)),
        )
        left_cost, right_cost = (
            torch.where(to_left, cost, torch.where(to_right, right_cost, left_cost)),
            torch.where(to_right, cost, torch.where(to_left, left_cost, right_cost)),
        )
    return latest


def _between(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return GOLDEN * low + (1 - GOLDEN) * high, (1 - GOLDEN) * low + GOLDEN * high
